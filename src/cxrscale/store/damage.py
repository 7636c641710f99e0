"""What shows that a JPEG or PNG file is not what was written, though decoders make a picture of it.

A PNG carries a checksum of each chunk. A JPEG has none: `check_jpeg` finds scans that never came and long runs of zeros
where the coder cannot have written them (blocks that a disk or a download lost); the rest is left to the decoder.
"""

import re
import zlib

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"

#: Zero bytes in a row. Scans of real radiographs hold five at most.
LOST = bytes(32)

_ADDRESS = re.compile(r"\s*<[^<>]*\bat 0x[0-9a-f]+[^<>]*>|\b0x[0-9a-f]{6,}\b", re.IGNORECASE)
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # within a scan: neither a stuffed byte nor a restart
_END, _SCAN, _HUFFMAN, _BASELINE, _EXTENDED, _PROGRESSIVE = 0xD9, 0xDA, 0xC4, 0xC0, 0xC1, 0xC2


class UnreadableImageError(Exception):
    """An image file that cannot be used; the message is the reason that quarantine.csv states.

    It is one line and the same in each run: addresses in memory, which a decoder's message may hold, are taken out.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(" ".join(_ADDRESS.sub("", reason).split()))


def check_png(data: bytes) -> None:
    """Raise UnreadableImageError unless all chunks up to the end (IEND) are there and hold what their CRC-32 says."""
    at = len(PNG_START)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise UnreadableImageError(f"cannot be decoded: the PNG chunk at byte {at} does not match its checksum")
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end
    raise UnreadableImageError("cannot be decoded: the PNG file ends before its last chunk")


def check_jpeg(data: bytes) -> None:
    """Raise UnreadableImageError where scans are missing before the end marker, or where bytes of a scan were lost.

    data: a file that libjpeg decodes without a warning. Zeros in a row are what the coder wrote only if its shortest
    codes mean "no difference" and "end of block", in a picture's flat parts; in progressive files such blocks share one
    code, except for their mean. Arithmetic coding and lossless JPEG are not looked into.
    """
    at, process = 2, 0
    first_symbols: dict[int, int] = {}  # of each Huffman table: what the code that is all zeros means
    bits_missing: dict[tuple[int, int], int] = {}  # of each component's 64 coefficients
    while True:
        while data[at + 1] == 0xFF:
            at += 1
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _END:
            break
        body, at = data[at + 4 : at + 2 + length], at + 2 + length
        if marker == _HUFFMAN:
            while body:
                first_symbols[body[0]] = body[17]
                body = body[17 + sum(body[1:17]) :]
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC8, 0xCC):
            process = marker
            bits_missing = {(body[6 + 3 * c], k): 99 for c in range(body[5]) for k in range(64)}
        elif marker == _SCAN:
            if process not in (_BASELINE, _EXTENDED, _PROGRESSIVE):
                return
            components = {body[1 + 2 * c]: body[2 + 2 * c] for c in range(body[0])}
            low, high, approximation = body[1 + 2 * len(components) : 4 + 2 * len(components)]
            bits_missing |= {(c, k): approximation & 15 for c in components for k in range(low, high + 1)}
            begin, at = at, _MARKER.search(data, at).start()  # type: ignore[union-attr]  # the end marker at the latest
            if low == 0:
                refines = process == _PROGRESSIVE and approximation >> 4
                tables = [] if refines else [t >> 4 for t in components.values()]
                tables += [] if process == _PROGRESSIVE else [16 + (t & 15) for t in components.values()]
                zeros_are_flat = not any(first_symbols.get(table, 0) for table in tables)
            else:
                zeros_are_flat = False
            if not zeros_are_flat and (lost := data.find(LOST, begin, at)) >= 0:
                raise UnreadableImageError(f"cannot be decoded: bytes of the JPEG were lost: zeros from byte {lost} on")
    if any(bits_missing.values()):
        raise UnreadableImageError("cannot be decoded: the JPEG file ends before its last scan")
