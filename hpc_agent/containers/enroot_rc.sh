#!/usr/bin/env bash
# The command script of an enroot container (enroot start --rc), in place of the image's own.
exec "$@"
