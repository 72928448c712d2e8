"""What a machine has and lacks, for `limpet doctor`.

probe     files, commands and libraries of a machine, or of one that a test made up
finding   one thing that was looked at
host      Python, system, processor, memory, clock
jetson    board, JetPack, power mode, clocks
graphics  the GPU
packages  what pip installed, and system libraries that it cannot
engines   what runs a model here
serving   sockets and the disk of the alert log
"""
