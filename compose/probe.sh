#!/bin/bash
# `probe PORT/PATH ...`: whether all of these answer 200 here; `tls:PORT/PATH` of one that speaks TLS. For health checks,
# in images that have no HTTP client.
for place in "$@"; do
  address=${place#tls:}
  request="GET /${address#*/} HTTP/1.0\r\nHost: localhost\r\n\r\n"
  if [[ $place == tls:* ]]; then
    # Whether it is well is asked, not who it is: its certificate need not be for this address.
    read -r -t 3 _ status _ < <(
      printf '%b' "$request" | timeout 4 openssl s_client -quiet -connect "127.0.0.1:${address%%/*}" 2> /dev/null
    )
  else
    exec 3<>"/dev/tcp/127.0.0.1/${address%%/*}" || exit 1
    printf '%b' "$request" >&3
    read -r -t 3 _ status _ <&3
    exec 3>&-
  fi
  if [[ $status != 200 ]]; then
    echo "$place: ${status:-no answer}"
    exit 1
  fi
done
