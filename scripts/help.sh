# Sourced by the scripts of this folder: `--help` or `-h` as first argument prints the comment at the
# head of the script, and ends.
case ${1:-} in
  -h | --help)
    sed -n '2,/^[^#]/s/^# \?//p' "$0"
    exit 0
    ;;
esac
