{{- define "daemonset-warden.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* 45 characters leave room for the longest ending, so that truncation makes no two names equal. */}}
{{- define "daemonset-warden.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Cluster-wide objects of two releases must differ: the name has the namespace, unless both are equal. */}}
{{- define "daemonset-warden.clusterName" -}}
{{- $fullname := include "daemonset-warden.fullname" . }}
{{- if eq $fullname .Release.Namespace }}{{ $fullname }}{{ else }}{{ printf "%s-%s" $fullname .Release.Namespace }}{{ end }}
{{- end }}

{{- define "daemonset-warden.selectorLabels" -}}
app.kubernetes.io/name: {{ include "daemonset-warden.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "daemonset-warden.labels" -}}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "daemonset-warden.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "daemonset-warden.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "daemonset-warden.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "daemonset-warden.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository $tag }}
{{- end }}
{{- end }}

{{- define "daemonset-warden.tlsSecretName" -}}
{{- $own := printf "%s-tls" (include "daemonset-warden.fullname" .) }}
{{- if eq .Values.tls.source "secret" }}
{{- required "tls.secret.name: required with tls.source secret" .Values.tls.secret.name }}
{{- else if eq .Values.tls.source "self" }}
{{- default $own .Values.tls.self.secretName }}
{{- else }}
{{- $own }}
{{- end }}
{{- end }}

{{- /* The name by which apiservers verify the certificate of /bind. */}}
{{- define "daemonset-warden.bindName" -}}
{{- printf "%s-bind.%s.svc" (include "daemonset-warden.fullname" .) .Release.Namespace }}
{{- end }}

{{- /* The names and addresses that a client may use, one a line. */}}
{{- define "daemonset-warden.tlsNames" -}}
{{- $fullname := include "daemonset-warden.fullname" . }}
{{- $names := list (printf "%s.%s.svc" $fullname .Release.Namespace) (printf "%s.%s" $fullname .Release.Namespace) $fullname }}
{{- if and .Values.service.clusterIP (ne .Values.service.clusterIP "None") }}
{{- $names = append $names .Values.service.clusterIP }}
{{- end }}
{{- if .Values.bindingWebhook.enabled }}
{{- $names = append $names (include "daemonset-warden.bindName" .) }}
{{- end }}
{{- if .Values.schedulerExtender.daemonSet.enabled }}
{{- $names = append $names "127.0.0.1" }}
{{- end }}
{{- range .Values.tls.extraNames }}
{{- $names = append $names . }}
{{- end }}
{{- join "\n" ($names | uniq) }}
{{- end }}

{{- /* Groups whose DaemonSets are validated, from config.daemonSetKinds. */}}
{{- define "daemonset-warden.otherGroups" -}}
{{- $groups := list }}
{{- range (default (list) .Values.config.daemonSetKinds) }}
{{- if and (eq .kind "DaemonSet") (ne .apiGroup "apps") }}
{{- $groups = append $groups .apiGroup }}
{{- end }}
{{- end }}
{{- join "\n" ($groups | uniq | sortAlpha) }}
{{- end }}

{{- /* The caller's selector, without the objects that are never sent. kube-system is not excluded as the release's own
       namespace, because its daemons are the most important; the release's own objects always carry the opt-out label. */}}
{{- define "daemonset-warden.namespaceSelector" -}}
{{- $root := index . 0 }}
{{- $selector := index . 1 }}
{{- with $selector.matchLabels }}
matchLabels:
  {{- toYaml . | nindent 2 }}
{{- end }}
matchExpressions:
  - key: daemonset-warden.io/ignore
    operator: NotIn
    values: ["true"]
  {{- if ne $root.Release.Namespace "kube-system" }}
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values: [{{ $root.Release.Namespace | quote }}]
  {{- end }}
  {{- with $selector.matchExpressions }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* As above, for /bind. The bindings of kube-system are sent too: they are never refused, but the pods have to be counted. With Fail
       kube-system and the own namespace are left out, wherever the release is, or a cluster without a replica could start none. */}}
{{- define "daemonset-warden.bindingNamespaceSelector" -}}
{{- $selector := .Values.bindingWebhook.namespaceSelector }}
{{- if eq .Values.bindingWebhook.failurePolicy "Fail" }}
{{- with $selector.matchLabels }}
matchLabels:
  {{- toYaml . | nindent 2 }}
{{- end }}
matchExpressions:
  - key: daemonset-warden.io/ignore
    operator: NotIn
    values: ["true"]
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values: {{ list "kube-system" .Release.Namespace | uniq | toJson }}
  {{- with $selector.matchExpressions }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- else }}
{{- include "daemonset-warden.namespaceSelector" (list . $selector) }}
{{- end }}
{{- end }}

{{- define "daemonset-warden.objectSelector" -}}
{{- with .matchLabels }}
matchLabels:
  {{- toYaml . | nindent 2 }}
{{- end }}
matchExpressions:
  - key: daemonset-warden.io/ignore
    operator: NotIn
    values: ["true"]
  {{- with .matchExpressions }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* The Service and the CA of a webhook: the root, the path, and the ending of the Service's name if it has one. */}}
{{- define "daemonset-warden.clientConfig" -}}
{{- $root := index . 0 }}
service:
  namespace: {{ $root.Release.Namespace }}
  name: {{ include "daemonset-warden.fullname" $root }}{{ if gt (len .) 2 }}{{ index . 2 }}{{ end }}
  path: {{ index . 1 }}
  port: {{ $root.Values.service.port }}
{{- if eq $root.Values.tls.source "secret" }}
caBundle: {{ required "tls.secret.caBundle: required with tls.source secret" $root.Values.tls.secret.caBundle | b64enc }}
{{- end }}
{{- end }}

{{- define "daemonset-warden.webhookAnnotations" -}}
{{- $root := index . 0 }}
{{- $annotations := index . 1 }}
{{- if eq $root.Values.tls.source "certManager" }}
{{- $annotations = merge (dict "cert-manager.io/inject-ca-from" (printf "%s/%s" $root.Release.Namespace (include "daemonset-warden.tlsSecretName" $root))) $annotations }}
{{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "daemonset-warden.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.pod.runAsUser }}
runAsUser: {{ . | int64 }}
runAsGroup: {{ . | int64 }}
fsGroup: {{ . | int64 }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "daemonset-warden.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* The arguments of `serve` in the Deployment and in the DaemonSet, besides --config. */}}
{{- define "daemonset-warden.commonArgs" -}}
{{- if eq .Values.tls.source "self" }}
- --tls-secret={{ .Release.Namespace }}/{{ include "daemonset-warden.tlsSecretName" . }}
- --tls-names={{ include "daemonset-warden.tlsNames" . | splitList "\n" | join "," }}
{{- if .Values.validatingWebhook.enabled }}
- --validating-webhook-configuration={{ include "daemonset-warden.clusterName" . }}
{{- end }}
{{- if .Values.mutatingWebhook.enabled }}
- --mutating-webhook-configuration={{ include "daemonset-warden.clusterName" . }}
{{- end }}
{{- if .Values.bindingWebhook.enabled }}
- --bind-webhook-configuration={{ include "daemonset-warden.clusterName" . }}-bind
{{- end }}
{{- else }}
- --tls-cert-file=/etc/daemonset-warden-tls/tls.crt
- --tls-private-key-file=/etc/daemonset-warden-tls/tls.key
{{- end }}
{{- if .Values.schedulerExtender.clientCASecretName }}
- --client-ca-file=/etc/daemonset-warden-client-ca/ca.crt
{{- end }}
{{- with .Values.tracing.endpoint }}
- {{ printf "--tracing-endpoint=%s" . | quote }}
- --tracing-sampling-rate-per-million={{ int64 $.Values.tracing.samplingRatePerMillion }}
{{- end }}
{{- with .Values.pod.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "daemonset-warden.volumeMounts" -}}
- name: config
  mountPath: /etc/daemonset-warden
  readOnly: true
{{- if ne .Values.tls.source "self" }}
- name: tls
  mountPath: /etc/daemonset-warden-tls
  readOnly: true
{{- end }}
{{- if .Values.schedulerExtender.clientCASecretName }}
- name: client-ca
  mountPath: /etc/daemonset-warden-client-ca
  readOnly: true
{{- end }}
{{- with .Values.pod.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "daemonset-warden.volumes" -}}
- name: config
  configMap:
    name: {{ include "daemonset-warden.fullname" . }}
{{- if ne .Values.tls.source "self" }}
- name: tls
  secret:
    secretName: {{ include "daemonset-warden.tlsSecretName" . }}
{{- end }}
{{- if .Values.schedulerExtender.clientCASecretName }}
- name: client-ca
  secret:
    secretName: {{ .Values.schedulerExtender.clientCASecretName }}
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- with .Values.pod.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "daemonset-warden.probe" -}}
httpGet:
  path: {{ .path }}
  port: metrics
  {{- with .host }}
  host: {{ . }}
  {{- end }}
{{- end }}

{{- /* The pod's name, under which it reports Events and stands for the Lease, and its namespace, which has the Lease. */}}
{{- define "daemonset-warden.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- with .Values.pod.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* true for a loopback address. */}}
{{- define "daemonset-warden.isLoopback" -}}
{{- if or (hasPrefix "127." .) (eq "::1" .) }}true{{ end }}
{{- end }}

{{- /* Enforce, Audit or Off. `default` and `merge` would treat false as unset, and YAML 1.1, which Helm reads, takes a bare Off for
false. */}}
{{- define "daemonset-warden.mode" -}}
{{- $reservation := .Values.config.reservation | default dict -}}
{{- $mode := "Enforce" -}}
{{- if hasKey $reservation "mode" }}{{ $mode = toString $reservation.mode }}{{ end }}
{{- if eq $mode "false" }}Off{{ else }}{{ $mode }}{{ end }}
{{- end }}

{{- /* true if daemon pods are nominated: only then the chart grants the right to patch pods/status. */}}
{{- define "daemonset-warden.nominates" -}}
{{- $reservation := .Values.config.reservation | default dict -}}
{{- if and (ne (toString $reservation.nominate) "false") (eq (include "daemonset-warden.mode" .) "Enforce") }}true{{ end }}
{{- end }}

{{- /* true if the replicas elect one of them: the one that judges bindings, and that nominates. */}}
{{- define "daemonset-warden.elects" -}}
{{- if or .Values.bindingWebhook.enabled (include "daemonset-warden.nominates" .) }}true{{ end }}
{{- end }}

{{- /* true if the extender's pods have a configuration of their own: without nomination. */}}
{{- define "daemonset-warden.extenderConfigDiffers" -}}
{{- if and .Values.schedulerExtender.daemonSet.enabled (include "daemonset-warden.nominates" .) }}true{{ end }}
{{- end }}
