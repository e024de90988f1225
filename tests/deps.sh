#!/bin/sh
# Installs the Debian packages that are missing. Usage: tests/deps.sh SET...  (build demo check apps accecn bench lint)
# Quick and silent when all is there. Daemons that come with a package are not started.
set -u

set_build="gcc libc6-dev make binutils libjansson-dev libpcap-dev systemtap-sdt-dev"
set_demo="iproute2 python3 util-linux curl nginx"
set_check="$set_demo clang libclang-rt-14-dev python3-jsonschema valgrind check liblwip-dev pkg-config libpcap-dev diffutils iputils-ping procps
    gunicorn wget netcat-openbsd socat iperf3 redis-server redis-tools memcached lighttpd haproxy
    apache2-utils wrk openssh-client openssh-server perl nodejs tcpdump ethtool tshark libpcap0.8
    busybox-static libpython3.11-testsuite apache2-bin rsync vsftpd openbsd-inetd mosquitto mosquitto-clients
    php8.2-fpm libfcgi-bin ruby git dnsmasq-base tinyproxy aria2 exim4-daemon-light postgresql-15 openssl libcap2-bin mandoc"
set_apps="$set_check mariadb-server default-jdk-headless"
set_accecn="$set_demo qemu-system-x86 nftables tcpdump ethtool busybox-static xz-utils zstd"
set_bench="$set_demo iperf3 wrk redis-server redis-tools netcat-openbsd strace valgrind
    sockperf gnuplot-nox"
set_lint="clang clang-format clang-tidy cppcheck libclang-rt-14-dev shellcheck"

wanted=
for name in "$@"; do
    case $name in
    build) wanted="$wanted $set_build" ;;
    demo) wanted="$wanted $set_demo" ;;
    check) wanted="$wanted $set_check" ;;
    apps) wanted="$wanted $set_apps" ;;
    accecn) wanted="$wanted $set_accecn" ;;
    bench) wanted="$wanted $set_bench" ;;
    lint) wanted="$wanted $set_lint" ;;
    *) echo "deps.sh: unknown set '$name'; known: build demo check apps accecn bench lint" >&2; exit 2 ;;
    esac
done

command -v dpkg-query >/dev/null 2>&1 || exit 0 # not Debian: the tools themselves will say what they miss

missing=
for package in $wanted; do
    case " $missing " in *" $package "*) continue ;; esac
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
    [ "$status" = installed ] || missing="$missing $package"
done
missing=${missing# }
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 && exec sudo -- "$0" "$@"
    echo "missing packages; as root: apt-get install --no-install-recommends $missing" >&2
    exit 1
fi

# While policy-rc.d says 101, no package starts its daemon (invoke-rc.d(8)); what was there comes back.
policy=/usr/sbin/policy-rc.d
kept=
# shellcheck disable=SC2317 # called by the trap
restore() {
    if [ -n "$kept" ]; then mv -f "$kept" "$policy"; else rm -f "$policy"; fi
}
if [ -e "$policy" ]; then
    kept=$policy.tcpshim.$$
    mv "$policy" "$kept"
fi
trap restore EXIT
trap 'exit 130' INT TERM
printf '#!/bin/sh\nexit 101\n' > "$policy"
chmod 755 "$policy"

echo "installing: $missing" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
apt-get update -qq >"$log" 2>&1
# A mail server or inetd that is there already stays: the tests of ours are left out then.
chosen=
for package in $missing; do
    case $package in
    exim4-daemon-light | openbsd-inetd)
        if apt-get install -s --no-install-recommends "$package" 2>/dev/null | grep -q '^Remv'; then
            echo "left out, as it would replace another package: $package" >&2
            continue
        fi ;;
    esac
    chosen="$chosen $package"
done
missing=$chosen
# shellcheck disable=SC2086 # a list of words on purpose
if apt-get install -y -qq --no-remove --no-install-recommends $missing >>"$log" 2>&1 </dev/null; then
    rm -f "$log"
    exit 0
fi
tail -n 15 "$log" >&2
echo "could not install; by hand: apt-get install --no-install-recommends $missing" >&2
rm -f "$log"
exit 1
