# Sourced by the scripts of this folder: `install_packages LIST...` installs the Debian packages that
# the list files name and that are not there yet. Asks no registry when nothing is missing.

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    echo "error: '$*' needs root: run as root or install sudo" >&2
    exit 1
  fi
}

install_packages() {
  local name missing=()
  for name in $(sed 's/#.*//' "$@"); do
    dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return
  echo "Installing Debian packages: ${missing[*]}"
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}
