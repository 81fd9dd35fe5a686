#!/bin/sh
# Prints what preflight wants to know of a host, one "key=value" a line. Reads only.

exists() { if [ -e "$2" ]; then echo "$1=yes"; else echo "$1=no"; fi; }

exists systemd /run/systemd/system
exists modhaven_nginx /etc/nginx/modhaven.loaded
exists modhaven_app /opt/modhaven/current/installed
if [ -e /opt/modhaven/current/installed ]; then echo "release=$(readlink -f /opt/modhaven/current)"; fi
exists modhaven_pool /etc/systemd/system/modhaven-pool.service
exists keepalived /etc/keepalived/keepalived.conf
if [ -e /etc/keepalived/keepalived.conf ] && ! grep -q '^vrrp_instance modhaven' /etc/keepalived/keepalived.conf; then
    echo "keepalived_of_others=yes"
fi
exists update_ca_certificates /usr/sbin/update-ca-certificates
if python3 -c 'import apt' 2>/dev/null; then echo "python_apt=yes"; else echo "python_apt=no"; fi

# Whom it trusts: the first line of a certificate has its random serial number in it.
sed -n '/BEGIN CERT/{n;s/^/trusts=/p;}' /etc/modhaven/pki/ca.crt 2>/dev/null

# A package that others only mention is known to dpkg too, without a version.
dpkg-query --show --showformat='nginx_version=${Version}\n' nginx 2>/dev/null | grep '=.'
dpkg-query --show --showformat='${db:Status-Abbrev}${Package}\n' 2>/dev/null | sed -n 's/^ii */package=/p'

# An nginx configuration that is neither ours nor the package's own.
if [ -e /etc/nginx/nginx.conf ] && ! grep -q modhaven /etc/nginx/nginx.conf; then
    dpkg --verify nginx-common 2>/dev/null | sed -n 's|.* \(/etc/nginx/nginx.conf\)$|foreign=\1|p'
    find /etc/nginx/conf.d /etc/nginx/sites-enabled -mindepth 1 ! -name default 2>/dev/null | sed 's/^/foreign=/'
fi

# Port and program of every TCP listener; the program needs root.
ss -Hltnp 2>/dev/null | awk '{
    port = $4; sub(/.*:/, "", port)
    program = "another program"
    if (match($0, /users:\(\("[^"]+"/)) program = substr($0, RSTART + 9, RLENGTH - 10)
    print "listen=" port " " program
}'
