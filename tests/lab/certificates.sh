#!/bin/sh
# The lab's own certificate authority, and a certificate for the names that a mirror answers to.
# Usage: certificates.sh FOLDER HOST NAME...     Makes FOLDER/ca.{key,crt} and FOLDER/HOST.{key,crt}.
# Makes again what runs out within 30 days, has other names, or was signed by another authority;
# prints one line for each thing it made.
set -eu

folder=$1
host=$2
shift 2
month=2592000
umask 077
mkdir -p "$folder"
exec 9> "$folder/lock"
flock 9

if ! openssl x509 -in "$folder/ca.crt" -noout -checkend "$month" > /dev/null 2>&1 ||
    [ ! -s "$folder/ca.key" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 397 \
        -subj "/CN=modhaven lab mirrors" -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout "$folder/ca.key" -out "$folder/ca.crt.part" 2> /dev/null
    mv "$folder/ca.crt.part" "$folder/ca.crt"
    echo "made the lab's certificate authority"
fi

names=$(printf 'DNS:%s, ' "$@" | sed 's/, $//')
current=$(openssl x509 -in "$folder/$host.crt" -noout -ext subjectAltName 2> /dev/null |
    sed -n 's/^ *\(DNS:.*\)$/\1/p' || true)
if [ "$current" != "$names" ] ||
    ! openssl x509 -in "$folder/$host.crt" -noout -checkend "$month" > /dev/null 2>&1 ||
    ! openssl verify -CAfile "$folder/ca.crt" "$folder/$host.crt" > /dev/null 2>&1; then
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" \
        -keyout "$folder/$host.key" -out "$folder/$host.csr" 2> /dev/null
    printf 'subjectAltName=%s\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n' \
        "$names" > "$folder/$host.ext"
    openssl x509 -req -in "$folder/$host.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" \
        -CAcreateserial -days 397 -extfile "$folder/$host.ext" -out "$folder/$host.crt.part" 2> /dev/null
    mv "$folder/$host.crt.part" "$folder/$host.crt"
    rm -f "$folder/$host.csr" "$folder/$host.ext"
    echo "made the certificate of $host"
fi
