//! Every name that Herald writes into the Kubernetes API, in one place.

/// API group of Herald's kinds.
pub const GROUP: &str = "heraldlb.io";
/// Version of Herald's kinds.
pub const VERSION: &str = "v1alpha1";

/// `spec.loadBalancerClass` of the Services that ask for Herald by name.
pub const CLASS: &str = "heraldlb.io/l2";

/// Requested addresses, comma-separated: one of each family, or as many as [`ANNOTATION_COUNT`] says. Wins over
/// `spec.loadBalancerIP`.
pub const ANNOTATION_ADDRESSES: &str = "heraldlb.io/addresses";
/// The requested number of addresses of each family: 1 without this annotation.
pub const ANNOTATION_COUNT: &str = "heraldlb.io/address-count";
/// Requested pools, comma-separated: each family is taken from the first of them that has it.
pub const ANNOTATION_POOL: &str = "heraldlb.io/address-pool";
/// Sharing key: Services of one key may share an address if their ports do not collide.
pub const ANNOTATION_SHARED: &str = "heraldlb.io/allow-shared-ip";
/// Written by Herald: the pools that the Service's addresses count to, comma-separated, in the order of the addresses.
pub const ANNOTATION_ALLOCATED_FROM: &str = "heraldlb.io/allocated-from-pool";
/// MetalLB's counterparts of [`ANNOTATION_ADDRESSES`], read where ours is absent, in this order. MetalLB still reads
/// its earlier prefix (`internal/k8s/controllers`), and charts write it.
pub const METALLB_ADDRESSES: [&str; 2] = ["metallb.io/loadBalancerIPs", "metallb.universe.tf/loadBalancerIPs"];
/// MetalLB's counterparts of [`ANNOTATION_POOL`].
pub const METALLB_POOL: [&str; 2] = ["metallb.io/address-pool", "metallb.universe.tf/address-pool"];
/// MetalLB's counterparts of [`ANNOTATION_SHARED`].
pub const METALLB_SHARED: [&str; 2] = ["metallb.io/allow-shared-ip", "metallb.universe.tf/allow-shared-ip"];

/// Annotations by which a Service asks another provider for an address, a pool or a share of an address, each with our
/// annotation that asks Herald for the same. Herald does not read the foreign ones: their values mean pools and keys of
/// that provider.
pub const FOREIGN_REQUESTS: [(&str, &str); 10] = [
    // Cilium, `pkg/annotation/k8s.go`.
    ("lbipam.cilium.io/ips", ANNOTATION_ADDRESSES),
    ("io.cilium/lb-ipam-ips", ANNOTATION_ADDRESSES),
    ("lbipam.cilium.io/sharing-key", ANNOTATION_SHARED),
    ("io.cilium/lb-ipam-sharing-key", ANNOTATION_SHARED),
    // kube-vip, `pkg/kubevip`.
    ("kube-vip.io/loadbalancerIPs", ANNOTATION_ADDRESSES),
    // PureLB, `pkg/apis/purelb/v1`.
    ("purelb.io/addresses", ANNOTATION_ADDRESSES),
    ("purelb.io/service-group", ANNOTATION_POOL),
    ("purelb.io/allow-shared-ip", ANNOTATION_SHARED),
    // OpenELB, `pkg/constant`.
    ("eip.openelb.kubesphere.io/v1alpha1", ANNOTATION_ADDRESSES),
    ("eip.openelb.kubesphere.io/v1alpha2", ANNOTATION_POOL),
];

/// On a Node: the interfaces that its speaker uses, as comma-separated patterns (see
/// [`InterfacePatterns`](crate::advertisement::InterfacePatterns)). Wins over the speakers' flag.
pub const ANNOTATION_INTERFACES: &str = "heraldlb.io/interfaces";

/// On a pool: the addresses, comma-separated, or `all`, that stay out of quarantine while the annotation exists.
pub const ANNOTATION_RELEASE_QUARANTINE: &str = "heraldlb.io/release-quarantine";

/// On a VirtualIP, "true": a Service already showed the address when the object was created, so the address is never
/// replaced.
pub const LABEL_ADOPTED: &str = "heraldlb.io/adopted";
/// Namespace of the Service that a VirtualIP serves (label on the VirtualIP; the first one where several share it).
pub const LABEL_SERVICE_NAMESPACE: &str = "heraldlb.io/service-namespace";
/// Name of the Service that a VirtualIP serves (label on the VirtualIP; the first one where several share it).
pub const LABEL_SERVICE_NAME: &str = "heraldlb.io/service-name";

/// The end of the prefix of the labels that a VirtualIP has for each Service that it serves: the label
/// `NAMESPACE.service.heraldlb.io/NAME`, so that a selector also finds the Services that share an address.
pub const LABEL_SERVICE_SUFFIX: &str = ".service.heraldlb.io";

/// Upstream's annotation for source ranges (`k8s.io/cloud-provider/service/helpers`). kube-proxy reads only the field.
pub const ANNOTATION_SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// Label that makes kube-proxy skip a Service (`pkg/proxy/apis/well_known_labels.go`).
pub const LABEL_SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Label of headless Services: kube-proxy skips an object that carries it (`pkg/proxy/config`, `v1.IsHeadlessService`).
pub const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";

/// Label by which a Gateway implementation names the Gateway on objects that it creates for the Gateway, in the
/// Gateway's namespace (GEP-1762, "In Cluster Gateway Deployments").
pub const LABEL_GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Finalizer on a Service without a class, i.e. where Herald is the cluster's default provider. Upstream's conformance
/// tests expect this one (`k8s.io/cloud-provider/service/helpers`).
pub const FINALIZER_SERVICE_DEFAULT: &str = "service.kubernetes.io/load-balancer-cleanup";
/// Finalizer on a Service of our class. It differs from upstream's: a cloud controller manager in the same cluster
/// removes upstream's finalizer from any deleted Service, whatever its class (`needsCleanup` does not look at the
/// class).
pub const FINALIZER_SERVICE_CLASS: &str = "heraldlb.io/load-balancer-cleanup";
/// Finalizer that holds a deleted VirtualIP until its announcer has fallen silent.
pub const FINALIZER_WITHDRAWAL: &str = "heraldlb.io/withdrawal";

/// Condition on a Service: whether it has every address that it asks for.
pub const CONDITION_ADDRESS_ASSIGNED: &str = "heraldlb.io/AddressAssigned";
/// Condition on a VirtualIP: whether a node answers for it.
pub const CONDITION_ANNOUNCED: &str = "Announced";
/// Condition on a VirtualIP: whether a host outside the cluster has claimed the address while it was announced.
pub const CONDITION_CONFLICT: &str = "Conflict";
/// Condition on a pool or an advertisement: whether the object is usable as written.
pub const CONDITION_ACCEPTED: &str = "Accepted";
/// Condition on a pool or an advertisement, present only while the object cannot work as written. By this condition
/// kstatus (`sigs.k8s.io/cli-utils/pkg/kstatus`), and Flux with it, recognises a failure that waiting does not mend.
pub const CONDITION_STALLED: &str = "Stalled";
/// Condition on a pool: whether every assigned address still lies in it.
pub const CONDITION_CONTAINS_ASSIGNED: &str = "ContainsAssigned";

/// Node label that keeps a node from announcing (see [`excludes_node`](crate::service::excludes_node)).
pub const LABEL_EXCLUDE_NODE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Taint that the cluster autoscaler puts on a node before it deletes the node.
pub const TAINT_AUTOSCALER_DELETES: &str = "ToBeDeletedByClusterAutoscaler";
/// Taint by which an operator asks Herald to move every address off a node.
pub const TAINT_DRAIN: &str = "heraldlb.io/drain";

/// The Secret, in Herald's namespace, from which the cluster's keys are made: each of its values, of at least 32 random
/// bytes, makes one key, and the names of the values order the keys, oldest first.
pub const SECRET_CLUSTER_KEY: &str = "herald-cluster-key";
/// The name of the first key in the Secret.
pub const FIRST_CLUSTER_KEY: &str = "key-1";

/// The labels of the speakers' pods in the DaemonSet (deploy/herald/speaker.yaml). A speaker whose pod has other labels
/// is taken for gone.
pub const SPEAKER_POD_SELECTOR: &str = "app.kubernetes.io/name=herald,app.kubernetes.io/component=speaker";

/// Field manager of the controller's writes.
pub const MANAGER_CONTROLLER: &str = "herald-controller";
/// Field manager of a speaker's writes.
pub const MANAGER_SPEAKER: &str = "herald-speaker";
