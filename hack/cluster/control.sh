# shellcheck shell=bash disable=SC2034,SC2154
# The control plane: etcd, API server, controller manager and scheduler in a network namespace of their own.

control_daemons=(etcd kube-apiserver kube-controller-manager kube-scheduler)

control_files() {
    local name
    certificate_authority
    certificate kube-apiserver /CN=kube-apiserver \
        "IP:$control_address,IP:$api_service_address,IP:127.0.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
    certificate admin /O=system:masters/CN=admin
    for name in kube-controller-manager kube-scheduler kube-proxy; do
        certificate "$name" "/CN=system:$name"
        kubeconfig "$name" "$cluster/$name.kubeconfig"
    done
    kubeconfig admin "$cluster/admin.kubeconfig"
    put "$cluster/kube-scheduler.yaml" <<END
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: $cluster/kube-scheduler.kubeconfig, qps: 200, burst: 400}
END
}

# The data does not survive the cluster, so etcd need not wait for the disk.
control_start() {
    daemon_ensure etcd "$control_space" "$(tool_directory etcd)/etcd" --data-dir "$cluster/etcd" --unsafe-no-fsync \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --log-level warn
    daemon_wait 60 etcd inside "$control_space" curl -fsS --max-time 2 http://127.0.0.1:2379/health

    daemon_ensure kube-apiserver "$control_space" "$tools_path/kube-apiserver" \
        --etcd-servers http://127.0.0.1:2379 \
        --bind-address "$control_address" --advertise-address "$control_address" --secure-port 6443 \
        --service-cluster-ip-range "$service_range" --allow-privileged \
        --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
        --client-ca-file "$pki/ca.crt" \
        --tls-cert-file "$pki/kube-apiserver.crt" --tls-private-key-file "$pki/kube-apiserver.key" \
        --kubelet-certificate-authority "$pki/ca.crt" \
        --kubelet-client-certificate "$pki/kubelet-client.crt" --kubelet-client-key "$pki/kubelet-client.key" \
        --kubelet-preferred-address-types InternalIP \
        --service-account-issuer https://kubernetes.default.svc \
        --service-account-key-file "$pki/service-accounts.pub" \
        --service-account-signing-key-file "$pki/service-accounts.key"
    daemon_wait 120 kube-apiserver kube get --raw /readyz --request-timeout 3s

    daemon_ensure kube-controller-manager "$control_space" "$tools_path/kube-controller-manager" \
        --kubeconfig "$cluster/kube-controller-manager.kubeconfig" --bind-address 127.0.0.1 \
        --root-ca-file "$pki/ca.crt" --service-account-private-key-file "$pki/service-accounts.key" \
        --use-service-account-credentials --leader-elect=false \
        --node-monitor-grace-period 20s --kube-api-qps 200 --kube-api-burst 400
    daemon_ensure kube-scheduler "$control_space" "$tools_path/kube-scheduler" \
        --config "$cluster/kube-scheduler.yaml" --bind-address 127.0.0.1
}

control_wait() {
    local port
    for port in kube-controller-manager:10257 kube-scheduler:10259; do
        daemon_wait 60 "${port%:*}" inside "$control_space" curl -fsSk --max-time 2 "https://127.0.0.1:${port#*:}/healthz"
    done
}
