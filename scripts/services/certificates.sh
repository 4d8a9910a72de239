#!/usr/bin/env bash
# A throw-away authority and what it signs for 127.0.0.1 and localhost, in a folder: ca.pem for clients, server.pem (key and certificates)
# for servers, server.key and server.crt for those that want them apart.
#
#   scripts/services/certificates.sh DIR [ADDRESS]
#
# ADDRESS is one more that they are good for.
set -euo pipefail
dir=$1
mkdir -p "$dir"
cd "$dir"
key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
openssl req -x509 "${key[@]}" -days 30 -subj /CN=test-authority -keyout ca.key -out ca.pem 2>/dev/null
openssl req "${key[@]}" -subj /CN=localhost -keyout server.key -out server.csr 2>/dev/null
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1%s\nbasicConstraints=CA:FALSE\n' "${2:+,IP:$2}" >extensions
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out server.crt 2>/dev/null
cat server.key server.crt ca.pem >server.pem
