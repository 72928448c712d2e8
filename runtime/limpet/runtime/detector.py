"""The detector under the name by which the server's streams know it."""

from limpet.contracts.detector import Detector as Detector
from limpet.contracts.detector import Event as Event
