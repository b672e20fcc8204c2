#!/bin/sh
set -e
getent group amphora >/dev/null || groupadd --system amphora
getent passwd amphora >/dev/null || useradd --system --gid amphora --home-dir /var/lib/amphora --no-create-home --shell /usr/sbin/nologin amphora
