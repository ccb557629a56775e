//! The combinations of values that the chart is tested with: the offline tests compare what Helm renders with golden files,
//! and the cluster tests send it to a real apiserver.

/// Arguments of `helm template`, by the name of the golden file.
pub(crate) const MATRIX: &[(&str, &[&str])] = &[
    ("default", &[]),
    ("kube-system", &["--namespace=kube-system"]),
    (
        "host-network",
        &["--set=hostNetwork=true,securePort=8443,replicas=3,bindAddress=::,pod.priorityClassName="],
    ),
    (
        "extender",
        &[
            "--set=schedulerExtender.daemonSet.enabled=true,schedulerExtender.clientCASecretName=scheduler-ca,service.clusterIP=10.96.0.50",
        ],
    ),
    (
        "extender-observed",
        &[
            "--set=schedulerExtender.daemonSet.enabled=true,schedulerExtender.daemonSet.metricsBindAddress=0.0.0.0,metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.prometheusRule.runbookUrl=https://wiki.example/alerts",
        ],
    ),
    ("openshift", &["--set=pod.runAsUser=null"]),
    ("cert-manager", &["--set=tls.source=certManager,tls.extraNames={192.0.2.1,warden.example}"]),
    (
        "cert-manager-issuer",
        &[
            "--set=tls.source=certManager,tls.certManager.issuerRef.name=corporate,tls.certManager.issuerRef.kind=ClusterIssuer",
        ],
    ),
    (
        "secret",
        &[
            "--set=tls.source=secret,tls.secret.name=mine",
            "--set-string=tls.secret.caBundle=-----BEGIN CERTIFICATE-----",
        ],
    ),
    (
        "observed",
        &[
            "--set=metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true,networkPolicy.enabled=true,networkPolicy.from[0].ipBlock.cidr=192.0.2.0/24,priorityClass.create=true,tracing.endpoint=http://collector.observability:4318,tracing.samplingRatePerMillion=1000000",
        ],
    ),
    ("without-nomination", &["--set=config.reservation.nominate=false"]),
    (
        "without-bind",
        &[
            "--set=bindingWebhook.enabled=false,config.reservation.mode=Audit,metrics.prometheusRule.enabled=true",
        ],
    ),
    (
        "bind-fail",
        &[
            "--set=bindingWebhook.failurePolicy=Fail,bindingWebhook.timeoutSeconds=2,bindingWebhook.annotations.a=b,bindingWebhook.namespaceSelector.matchExpressions[0].key=tier,bindingWebhook.namespaceSelector.matchExpressions[0].operator=NotIn,bindingWebhook.namespaceSelector.matchExpressions[0].values[0]=system",
            "--set=bindingWebhook.matchConditions[0].name=some-nodes,bindingWebhook.matchConditions[0].expression=object.target.name != 'n1'",
            "--set=config.admission.defaultPriorityClassName=agents,flowSchema.enabled=false",
        ],
    ),
    (
        "little",
        &[
            "--set=rbac.create=false,serviceAccount.create=false,podDisruptionBudget.enabled=false,validatingWebhook.enabled=false,tests.enabled=false,metrics.service.enabled=false,resourceQuota.enabled=false",
        ],
    ),
    (
        "configured",
        &[
            "--set=config.daemonSetKinds[0].apiGroup=apps,config.daemonSetKinds[0].kind=DaemonSet,config.daemonSetKinds[1].apiGroup=apps.kruise.io,config.daemonSetKinds[1].kind=DaemonSet,config.reservation.mode=Audit,config.reservation.holdTimeout=5m,mutatingWebhook.failurePolicy=Fail,mutatingWebhook.namespaceSelector.matchLabels.team=a",
        ],
    ),
];
