#!/bin/sh
# Take out of the packages below $1 what no process of the server reads: debug symbols of compiled modules, and the
# second of zstandard's two backends. Without `strip` (an image without binutils) the symbols stay.
#
# Only modules at their own place are stripped: libraries in *.libs were patched by auditwheel, and stripping breaks such files.
set -eu
find "$1" -path '*/zstandard/_cffi.*.so' -type f -delete
if command -v strip >/dev/null; then
    find "$1" -name '*.so' -type f ! -path '*.libs/*' -exec strip --strip-unneeded {} +
fi
