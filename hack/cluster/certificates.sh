# shellcheck shell=bash disable=SC2154
# The cluster's certificate authority, its certificates and the kubeconfigs made of them.
# Each file gets its name when it is whole, and is kept while it is there.

pki=$cluster/pki

certificate_authority() {
    mkdir -p "$pki"
    [[ -f $pki/ca.crt ]] || certificate_make ca -subj /CN=thole-cluster \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
    if [[ ! -f $pki/service-accounts.key ]]; then
        openssl ecparam -name prime256v1 -genkey -noout -out "$pki/service-accounts.tmp"
        openssl ec -in "$pki/service-accounts.tmp" -pubout -out "$pki/service-accounts.pub" 2>/dev/null
        mv "$pki/service-accounts.tmp" "$pki/service-accounts.key"
    fi
}

# certificate NAME SUBJECT [ALTERNATIVE NAMES]: $pki/NAME.crt and .key, signed by the authority.
certificate() {
    local name=$1 subject=$2 names=${3:-}
    [[ ! -f $pki/$name.crt ]] || return 0
    certificate_make "$name" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -subj "$subject" \
        -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth,clientAuth \
        ${names:+-addext subjectAltName=$names}
}

certificate_make() {
    local name=$1
    shift
    openssl req -x509 -new -config <(printf '[req]\ndistinguished_name = name\n[name]\n') \
        -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 3650 -sha256 \
        -keyout "$pki/$name.key.tmp" -out "$pki/$name.crt.tmp" "$@" 2>"$pki/openssl.log" ||
        die "openssl could not make the certificate '$name': $(tail -n 1 "$pki/openssl.log")"
    mv "$pki/$name.key.tmp" "$pki/$name.key"
    mv "$pki/$name.crt.tmp" "$pki/$name.crt"
}

# kubeconfig NAME FILE: a kubeconfig with the certificate NAME, complete in itself.
kubeconfig() {
    local name=$1 file=$2
    [[ ! -f $file ]] || return 0
    put "$file" <<END
apiVersion: v1
kind: Config
current-context: thole
clusters:
- name: thole
  cluster:
    server: $api_url
    certificate-authority-data: $(base64 -w0 "$pki/ca.crt")
contexts:
- name: thole
  context: {cluster: thole, user: $name}
users:
- name: $name
  user:
    client-certificate-data: $(base64 -w0 "$pki/$name.crt")
    client-key-data: $(base64 -w0 "$pki/$name.key")
END
}
