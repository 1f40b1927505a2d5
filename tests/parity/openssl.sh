#!/bin/sh
# Stands where PgBouncer's tests expect `openssl`: a site's certificate is of version 3, with the
# site's name where TLS libraries look for it today.  The version of Debian 12 makes those of
# version 1 when nobody says anything, and rustls takes these from nobody.
real=/usr/bin/openssl
request=
previous=
for argument; do
  [ "$previous" = -in ] && request=$argument
  previous=$argument
done
if [ "$1" != ca ] || [ -z "$request" ]; then
  exec "$real" "$@"
fi
name=$("$real" req -in "$request" -noout -subject -nameopt multiline | sed -n 's/^ *commonName *= //p')
extensions=$(mktemp)
trap 'rm -f "$extensions"' EXIT
printf '[site]\nsubjectAltName=DNS:%s\n' "$name" > "$extensions"
"$real" "$@" -extfile "$extensions" -extensions site
