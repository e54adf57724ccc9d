#!/bin/bash
# `probe PORT/PATH ...`: whether all of these answer 200 here. For health checks, in images that have no HTTP client.
for place in "$@"; do
  exec 3<>"/dev/tcp/127.0.0.1/${place%%/*}" || exit 1
  printf 'GET /%s HTTP/1.0\r\nHost: localhost\r\n\r\n' "${place#*/}" >&3
  read -r -t 3 _ status _ <&3
  if [[ $status != 200 ]]; then
    echo "$place: ${status:-no answer}"
    exit 1
  fi
  exec 3>&-
done
