{{/* The name before all others: the release's, with the chart's unless it is in it. */}}
{{- define "deeplens.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- trunc 40 $name | trimSuffix "-" -}}
{{- end }}

{{/* What selects the pods of one component. Takes (dict "root" $ "component" "api"). */}}
{{- define "deeplens.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "deeplens.labels" -}}
{{ include "deeplens.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "deeplens.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "deeplens.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{/* Each extraction service by its own name: workers take them in turn. */}}
{{- define "deeplens.extractorUrls" -}}
{{- $service := printf "%s-extractor" (include "deeplens.name" .) -}}
{{- $urls := list -}}
{{- range $i := until (int .Values.extractor.replicas) -}}
{{- $urls = append $urls (printf "http://%s-%d.%s:8001" $service $i $service) -}}
{{- end -}}
{{- join "," $urls -}}
{{- end }}

{{/* The stages with the topics that each reads: (dict "process" (dict "topics" … "partitions" …)). */}}
{{- define "deeplens.stages" -}}
process: {topics: [deeplens.images.uploaded], partitions: 6}
extract: {topics: [deeplens.features.extraction], partitions: 4}
index: {topics: [deeplens.vectors.indexing, deeplens.images.deleted], partitions: 4}
{{- end }}

{{/*
What the pods of all components have in common.
Takes (dict "root" $ "component" "api" "flavour" "light" "emptyData" false).
*/}}
{{- define "deeplens.podMetadata" -}}
{{- $values := index .root.Values .component -}}
labels:
  {{- include "deeplens.labels" . | nindent 2 }}
annotations:
  # New settings, new pods.
  checksum/settings: {{ include "deeplens.settings" .root | sha256sum }}
  {{- with $values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "deeplens.podSpec" -}}
serviceAccountName: {{ include "deeplens.serviceAccount" .root }}
automountServiceAccountToken: false
# Else a service named deeplens-extractor would put DEEPLENS_EXTRACTOR_PORT=tcp://… into every pod.
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "deeplens.selector" . | nindent 8 }}
{{- with (index .root.Values .component).affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  {{- include "deeplens.volumes" . | nindent 2 }}
  {{- if .emptyData }}
  - {name: data, emptyDir: {}}
  {{- end }}
{{- end }}

{{- define "deeplens.container" -}}
name: {{ .component }}
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}-{{ .flavour }}"
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - configMapRef: {name: {{ include "deeplens.name" .root }}}
  {{- if and .root.Values.credentials.existingSecret (ne .component "extractor") }}
  - secretRef: {name: {{ .root.Values.credentials.existingSecret }}}
  {{- end }}
{{- end }}

{{/* The extractor talks to nobody, and gets no credentials. */}}
{{- define "deeplens.files" -}}
{{- if ne .component "extractor" }}{{ toYaml .root.Values.credentials.files }}{{ else }}[]{{ end -}}
{{- end }}

{{- define "deeplens.mounts" -}}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
{{- if .root.Values.weights.existingClaim }}
- {name: weights, mountPath: /weights, readOnly: true}
{{- end }}
{{- range $i, $file := include "deeplens.files" . | fromYamlArray }}
- {name: file-{{ $i }}, mountPath: {{ $file.mountPath }}, readOnly: true}
{{- end }}
{{- end }}

{{/* All volumes but `data`, which is a claim here and a folder there. */}}
{{- define "deeplens.volumes" -}}
- {name: tmp, emptyDir: {}}
{{- with .root.Values.weights.existingClaim }}
- {name: weights, persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}}
{{- end }}
{{- range $i, $file := include "deeplens.files" . | fromYamlArray }}
- {name: file-{{ $i }}, secret: {secretName: {{ $file.secret }}, defaultMode: 0440}}
{{- end }}
{{- end }}

{{/*
Probes of a worker. Takes (dict "seconds" 120).
It has started when its partitions are there and its tables recovered, so an update goes on only
then. Dependencies that all share do not make a pod unready: that would take every pod out at once,
and with them what goes on without the dependency. A worker says itself what it cannot do.
*/}}
{{- define "deeplens.workerProbes" -}}
startupProbe:
  httpGet: {path: "/health/ready?only=broker,tables", port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ div (int .seconds) 5 }}
readinessProbe:
  httpGet: {path: /health/live, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
livenessProbe:
  httpGet: {path: /health/live, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}
