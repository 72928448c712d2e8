"""The manifest of a bundle: everything a robot has to know about a model, as data."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from limpet.contracts.clouds import CloudPreprocessing
from limpet.contracts.errors import BundleError, TensorError
from limpet.contracts.grasps import GraspDecoding
from limpet.contracts.images import ImagePreprocessing
from limpet.contracts.signal_steps import LookBack, SignalStep
from limpet.contracts.tensors import TensorSpec

SCHEMA_VERSION = 1

Kind = Literal["grasp", "navigation", "anomaly", "custom"]
Precision = Literal["fp32", "fp16", "int8"]


class SignalPreprocessing(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="signal"
):
    """Turns rows of a sensor stream into the frames that a model takes one after another.

    Attributes:
        channels: Names, in the order of the features. (c,)
        rate_hz: Rows per second of the training data.
        steps: The chain that `signals.SignalPreprocessor` runs.
    """

    channels: list[str]
    rate_hz: float
    steps: list[SignalStep]

    @property
    def look_back(self) -> LookBack:
        """What a score depends on, the chain's last step."""
        step = self.steps[-1]
        assert isinstance(step, LookBack)
        return step


class AnomalyDecoding(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="anomaly"
):
    """Which outputs carry what; scores grow with strangeness.

    The inputs are samples [batch, rows, features], present [batch, rows, features] (1 where a
    feature was measured) and state [batch, size], zeros where a stream begins.
    """

    score: str = "score"
    embedding: str = "embedding"
    next_state: str = "next_state"


class MemoryDecoding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a policy remembers: an output that is an input again a little later.

    Both are [batch, size], each number within ±1, zeros where a trip begins. Who asks keeps it.

    Attributes:
        input: The last input.
        output: The last output.
        step_s: Time between an image and the one whose memory goes with it, as in training.
        longest_s: Older memories are none any more: the world has gone on unseen.
    """

    input: str = "memory"
    output: str = "next_memory"
    step_s: float = 0.1
    longest_s: float = 0.5


class ActionDecoding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a mobile robot's policy drives, and how long its word holds.

    The inputs beside the image are goal [batch, 3]: distance (m), cosine and sine of its bearing in
    the robot's frame, counter-clockwise from straight ahead; and proprioception [batch, 2]: forward
    speed (m/s) and turn rate (rad/s) driven last. The output is [batch, 2]: forward speed (m/s) and
    turn rate (rad/s).

    Attributes:
        name: The output.
        largest_speed: m/s either way; actions are limited to it.
        largest_turn_rate: rad/s either way.
        valid_s: How long after its image was captured an action may be followed, seconds.
        farthest_goal_m: Goals beyond this are refused.
        memory: What it remembers; None for one that knows the moment alone.
    """

    name: str = "action"
    largest_speed: float
    largest_turn_rate: float
    valid_s: float = 0.3
    farthest_goal_m: float = 100.0
    memory: MemoryDecoding | None = None


class NavigationDecoding(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="navigation"
):
    """Which outputs carry what.

    The first input is image [batch, 3, height, width], as the manifest's preprocessing makes it of
    a camera's images.

    Attributes:
        embedding: Output whose rows have unit length: frames of like geometry are near each other.
        action: The policy's output; None for an encoder alone.
    """

    embedding: str = "embedding"
    action: ActionDecoding | None = None


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Thresholds on the score and what they were set for.

    Attributes:
        threshold: A row scoring at least this is anomalous.
        release_threshold: An incident ends below this; at most `threshold`.
        false_alarm_rate: Share of normal rows that reach `threshold`, 0 to 1.
        false_alarms_per_day: Incidents of normal operation a day, where they set `threshold`.
        held_out_rows: Number of normal rows, scored without having been learnt, that set it.
        data: Name of the recording they came from.
    """

    threshold: float
    release_threshold: float
    false_alarm_rate: float
    held_out_rows: int
    false_alarms_per_day: float | None = None
    data: str = ""


class DataDigest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file that a model was trained on: its name, SHA-256 and the rows used."""

    name: str
    sha256: str
    rows: int


class Provenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a model comes from.

    Attributes:
        command: The command line that trained it.
        created: UTC time of training, ISO 8601.
        commit: Revision of limpet's source, empty where unknown.
        configuration: The training configuration, as it was used.
        data: Every training file.
        metrics: Measured figures; the name says the data set (`nab/machine_temperature auroc`).
        versions: Versions of the libraries that trained and exported it.
    """

    command: str = ""
    created: str = ""
    commit: str = ""
    configuration: dict[str, object] = {}
    data: list[DataDigest] = []
    metrics: dict[str, float] = {}
    versions: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Contents of `manifest.json`.

    Attributes:
        schema_version: `SCHEMA_VERSION` of the writer.
        name: Name the model is served under unless the configuration gives another.
        kind: What the model is for.
        space_id: Digest of the weights; embeddings compare only within one space.
        inputs: The ONNX graph's inputs, in order.
        outputs: The ONNX graph's outputs, in order.
        preprocessing: From a node's data to `inputs`; None where a client sends `inputs` itself.
        decoding: What the outputs mean; None where a client gets them as they are.
        calibration: Thresholds; None for a model without a score.
        precision: Number format of the graph's weights and activations.
        opset: ONNX operator set.
        provenance: Where the model comes from.
        files: SHA-256 of every file of the bundle but this one and `engines/`.
        manifest_sha256: SHA-256 of this manifest with this field empty.
    """

    schema_version: int
    name: str
    kind: Kind
    space_id: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    preprocessing: SignalPreprocessing | ImagePreprocessing | CloudPreprocessing | None = None
    decoding: AnomalyDecoding | NavigationDecoding | GraspDecoding | None = None
    calibration: Calibration | None = None
    precision: Precision = "fp32"
    opset: int
    provenance: Provenance = Provenance()
    files: dict[str, str] = {}
    manifest_sha256: str = ""

    def signal(self) -> SignalPreprocessing:
        """The signal preprocessing of a model that scores streams.

        Raises:
            BundleError: The model has none.
        """
        if not isinstance(self.preprocessing, SignalPreprocessing):
            raise BundleError(
                f"model {self.name!r} is of kind {self.kind!r} and scores no sensor streams"
            )
        return self.preprocessing

    def image(self) -> ImagePreprocessing:
        """The image preprocessing of a model that takes a camera's images.

        Raises:
            BundleError: The model has none.
        """
        if not isinstance(self.preprocessing, ImagePreprocessing):
            raise BundleError(f"model {self.name!r} is of kind {self.kind!r} and takes no images")
        return self.preprocessing

    def cloud(self) -> CloudPreprocessing:
        """The preprocessing of a model that takes depth images or clouds.

        Raises:
            BundleError: The model takes none.
        """
        if not isinstance(self.preprocessing, CloudPreprocessing):
            raise BundleError(
                f"model {self.name!r} is of kind {self.kind!r} and takes no depth images"
            )
        return self.preprocessing


class _Probe(msgspec.Struct):
    schema_version: int


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as the bytes of `manifest.json`, sealed with its own digest."""
    return _seal(msgspec.json.decode(msgspec.json.encode(manifest, order="deterministic")))


def _seal(document: dict[str, object]) -> bytes:
    document["manifest_sha256"] = ""
    digest = hashlib.sha256(msgspec.json.encode(document)).hexdigest()
    document["manifest_sha256"] = digest
    return msgspec.json.format(msgspec.json.encode(document)) + b"\n"


def decode_manifest(raw: bytes, where: str) -> Manifest:
    """Reads the bytes of a `manifest.json`; the seal is `is_sealed`'s to check.

    Raises:
        BundleError: Not JSON, of another schema version, or with missing, unknown or wrong fields.
    """
    try:
        version = msgspec.json.decode(raw, type=_Probe).schema_version
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{where} has schema version {version}, this limpet reads {SCHEMA_VERSION}",
                "export the model again with this version, or install the limpet that wrote it",
            )
        return msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TensorError) as error:
        raise BundleError(
            f"{where} is not a valid manifest: {error}", "export the model again"
        ) from error


def is_sealed(raw: bytes) -> bool:
    """Whether `raw`, a JSON object, is byte for byte what `encode_manifest` wrote.

    Told by the document itself: a limpet that knows more fields reads what one before it sealed.
    """
    return raw == _seal(msgspec.json.decode(raw))
