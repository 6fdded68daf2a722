#!/bin/sh
# Install medunet from a checkout into /opt/medunet, as root on Debian 12: deploy/Dockerfile and deploy/medunet.def run it.
#   install.sh CHECKOUT DEVICE EXTRAS      DEVICE: cpu or cuda
set -eu
checkout=$1 device=$2 extras=$3
torch_cpu_index=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}
case $device in
cpu | cuda) ;;
*) echo "DEVICE is cpu or cuda, not $device" >&2; exit 2 ;;
esac

apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends ca-certificates python3 python3-venv
apt-get clean
rm -rf /var/lib/apt/lists/*

python3 -m venv /opt/medunet
install() { /opt/medunet/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check "$@"; }
if [ "$device" = cpu ]; then # PyPI's torch for Linux is that for CUDA
    install --no-deps --index-url "$torch_cpu_index" "$(grep '^torch==' "$checkout/constraints.txt")"
fi
install -c "$checkout/constraints.txt" "${checkout}[$extras]"

# Without a package index the package is built without the viewer of report pages; an image is not.
find /opt/medunet -path '*/medunet/reporting/assets/niivue.umd.js' | grep -q . || {
    echo "NiiVue was not fetched" >&2
    exit 1
}
/opt/medunet/bin/python -m pip uninstall --quiet --yes pip # nothing is installed at run time
