{{/* RELEASE-sluice; RELEASE where that says sluice already. A part of the release's hash follows where two releases would
have one name (`rl` and `rl-sluice`, or long ones), or the name had to change: a Service's begins with a letter and has
no dot. At most 40 characters, since what the chart and Kubernetes put behind it has to fit in 63. */}}
{{- define "sluice.name" -}}
{{- $said := contains "sluice" .Release.Name -}}
{{- $full := ternary .Release.Name (printf "%s-sluice" .Release.Name) $said -}}
{{- $name := ternary $full (printf "sluice-%s" .Release.Name) (regexMatch "^[a-z]" $full) | replace "." "-" -}}
{{- if or (ne $name $full) (gt (len $name) 40) (and $said (hasSuffix "-sluice" $name)) -}}
{{- $name = printf "%s-%s" ($name | trunc 31 | trimSuffix "-") (sha256sum .Release.Name | trunc 8) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "sluice.selector" -}}
app.kubernetes.io/name: sluice
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "sluice.labels" -}}
{{ include "sluice.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
sluice.dev/run: {{ .Values.run.run | default "demo" | quote }}
{{- end -}}

{{- define "sluice.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "sluice.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* The start hook comes before the release's own account, so it has one like it: its own, gone with the hook. */}}
{{- define "sluice.startAccount" -}}
{{- $own := and .Values.serviceAccount.create (ne .Values.topics.manage "strimzi") -}}
{{- ternary (printf "%s-start" (include "sluice.name" .)) (include "sluice.serviceAccount" .) $own -}}
{{- end -}}

{{/* Where a service lives: verification that runs programs has a namespace of its own, with the least that its jails need. */}}
{{- define "sluice.namespace" -}}
{{- $code := .root.Values.verification.code -}}
{{- if and (eq .service "verification") $code.enabled -}}
{{- required "verification.code.namespace is empty; accepted: a namespace that was made for it" $code.namespace -}}
{{- else -}}
{{- .root.Release.Namespace -}}
{{- end -}}
{{- end -}}

{{- define "sluice.namespaces" -}}
{{- list .Release.Namespace (include "sluice.namespace" (dict "root" . "service" "verification")) | uniq | toJson -}}
{{- end -}}

{{/* Pods of this release, wherever they live. */}}
{{- define "sluice.peers" -}}
- podSelector:
    matchLabels:
      {{- include "sluice.selector" . | nindent 6 }}
  {{- if .Values.verification.code.enabled }}
  namespaceSelector:
    matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: {{ include "sluice.namespaces" . }}}]
  {{- end }}
{{- end -}}

{{/* Topics, groups and ids of the run begin so. */}}
{{- define "sluice.prefix" -}}
{{- printf "%s.%s" (.Values.run.prefix | default "sluice") (.Values.run.run | default "demo") -}}
{{- end -}}

{{- define "sluice.runFile" -}}
{{- $servers := required "kafka.bootstrapServers is empty; accepted: host:port[,host:port]" .Values.kafka.bootstrapServers -}}
{{- /* A copy: `merge` writes into what it is given first. */ -}}
{{- $run := merge (dict "log" (printf "kafka://%s" $servers)) (deepCopy .Values.run) -}}
{{- if .Values.learning.ray.enabled -}}
{{- $run = merge $run (dict "learning" (dict "ray" (printf "ray://%s-head-svc:10001" (include "sluice.rayName" .)))) -}}
{{- end -}}
{{- toYaml $run -}}
{{- end -}}

{{/* What a service's pods are made anew for. Where Ray is concerns the learner alone. */}}
{{- define "sluice.runChecksum" -}}
{{- $run := include "sluice.runFile" .root | fromYaml -}}
{{- if and (ne .service "learning") $run.learning -}}
{{- $_ := set $run "learning" (omit $run.learning "ray") -}}
{{- end -}}
{{- toYaml $run | sha256sum -}}
{{- end -}}

{{- define "sluice.image" -}}
{{- $own := (index .root.Values .service).image -}}
{{- $tag := $own.tag | default (.root.Values.image.tag | default .root.Chart.AppVersion) -}}
{{- $name := $own.repository | default (printf "sluice-%s" .service) -}}
{{- if and .root.Values.image.registry (not $own.repository) -}}
{{- printf "%s/%s:%s" (trimSuffix "/" .root.Values.image.registry) $name $tag -}}
{{- else -}}
{{- printf "%s:%s" $name $tag -}}
{{- end -}}
{{- end -}}

{{/* Whose image holds what reads the prompts: reasoning-gym is in verification's, everything is in learning's. */}}
{{- define "sluice.startService" -}}
{{- $other := false -}}
{{- range (dig "data" "sources" list .Values.run) }}{{ if ne (.kind | default "") "reasoning_gym" }}{{ $other = true }}{{ end }}{{ end -}}
{{- ternary "learning" "verification" $other -}}
{{- end -}}

{{- define "sluice.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int64 .Values.security.runAsUser }}
runAsGroup: {{ int64 .Values.security.runAsUser }}
fsGroup: {{ int64 .Values.security.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "sluice.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "sluice.env" -}}
- {name: HOME, value: /tmp}
- {name: SLUICE_LOG_LEVEL, value: {{ .Values.logLevel }}}
- {name: SLUICE_CACHE, value: /var/cache/sluice}
- {name: HF_HOME, value: /var/cache/sluice/huggingface}
{{- if .Values.tracing.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .Values.tracing.endpoint | quote }}}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ .Values.tracing.share | quote }}}
{{- end }}
{{- $tls := .Values.kafka.tls.enabled }}
{{- $sasl := .Values.kafka.sasl.mechanism }}
{{- if or $tls $sasl }}
- name: SLUICE_KAFKA_SECURITY_PROTOCOL
  value: {{ ternary (ternary "SASL_SSL" "SSL" (ne $sasl "")) "SASL_PLAINTEXT" $tls }}
{{- end }}
{{- if and $tls .Values.kafka.tls.existingSecret }}
- {name: SLUICE_KAFKA_SSL_CAFILE, value: {{ printf "/etc/sluice-kafka-tls/%s" .Values.kafka.tls.caKey | quote }}}
{{- if .Values.kafka.tls.certKey }}
- {name: SLUICE_KAFKA_SSL_CERTFILE, value: {{ printf "/etc/sluice-kafka-tls/%s" .Values.kafka.tls.certKey | quote }}}
- {name: SLUICE_KAFKA_SSL_KEYFILE, value: {{ printf "/etc/sluice-kafka-tls/%s" .Values.kafka.tls.keyKey | quote }}}
{{- end }}
{{- end }}
{{- if $sasl }}
- {name: SLUICE_KAFKA_SASL_MECHANISM, value: {{ $sasl }}}
- name: SLUICE_KAFKA_SASL_USERNAME
  {{- with .Values.kafka.sasl }}
  {{- if .username }}
  value: {{ quote .username }}
  {{- else }}
  valueFrom: {secretKeyRef: {name: {{ quote .existingSecret }}, key: {{ quote .usernameKey }}}}
  {{- end }}
  {{- end }}
- {name: SLUICE_KAFKA_SASL_PASSWORD_FILE, value: {{ printf "/etc/sluice-kafka-sasl/%s" .Values.kafka.sasl.passwordKey | quote }}}
{{- end }}
{{- if .Values.doors.tls.existingSecret }}
- {name: SLUICE_TLS_CERT, value: /etc/sluice-doors/tls.crt}
- {name: SLUICE_TLS_KEY, value: /etc/sluice-doors/tls.key}
- {name: SLUICE_TLS_CA, value: /etc/sluice-doors/ca.crt}
{{- if .Values.doors.tls.serverName }}
- {name: SLUICE_TLS_SERVER_NAME, value: {{ .Values.doors.tls.serverName | quote }}}
{{- end }}
{{- range $role, $names := .Values.doors.tls.allow }}
{{- if $names }}
- {name: SLUICE_ALLOW_{{ upper $role }}, value: {{ join "," $names | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.doors.tokens.existingSecret }}
- {name: SLUICE_TOKENS_FILE, value: /etc/sluice-tokens/tokens}
- {name: SLUICE_TOKEN_FILE, value: /etc/sluice-tokens/client}
{{- end }}
- {name: SLUICE_MAX_MESSAGE_BYTES, value: {{ .Values.doors.maxMessageBytes | int64 | quote }}}
- {name: SLUICE_MAX_CALLS, value: {{ .Values.doors.maxCalls | int64 | quote }}}
- {name: SLUICE_CALLS_PER_S, value: {{ .Values.doors.callsPerSecond | quote }}}
{{- end -}}

{{/* For who gets models and data from the hub: generation, learning, and the start that reads the prompts. */}}
{{- define "sluice.hubToken" -}}
{{- with .Values.model.tokenSecret }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ quote . }}, key: token}}
{{- end }}
{{- end -}}

{{- define "sluice.mounts" -}}
- {name: run, mountPath: /etc/sluice, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if and .Values.kafka.tls.enabled .Values.kafka.tls.existingSecret }}
- {name: kafka-tls, mountPath: /etc/sluice-kafka-tls, readOnly: true}
{{- end }}
{{- if .Values.kafka.sasl.mechanism }}
- {name: kafka-sasl, mountPath: /etc/sluice-kafka-sasl, readOnly: true}
{{- end }}
{{- if .Values.doors.tls.existingSecret }}
- {name: doors, mountPath: /etc/sluice-doors, readOnly: true}
{{- end }}
{{- if .Values.doors.tokens.existingSecret }}
- {name: tokens, mountPath: /etc/sluice-tokens, readOnly: true}
{{- end }}
{{- end -}}

{{- define "sluice.volumes" -}}
- {name: tmp, emptyDir: {}}
{{- if and .Values.kafka.tls.enabled .Values.kafka.tls.existingSecret }}
- {name: kafka-tls, secret: {secretName: {{ .Values.kafka.tls.existingSecret | quote }}, defaultMode: 0440}}
{{- end }}
{{- if .Values.kafka.sasl.mechanism }}
- {name: kafka-sasl, secret: {secretName: {{ .Values.kafka.sasl.existingSecret | quote }}, defaultMode: 0440}}
{{- end }}
{{- if .Values.doors.tls.existingSecret }}
- {name: doors, secret: {secretName: {{ .Values.doors.tls.existingSecret | quote }}, defaultMode: 0440}}
{{- end }}
{{- if .Values.doors.tokens.existingSecret }}
- {name: tokens, secret: {secretName: {{ .Values.doors.tokens.existingSecret | quote }}, defaultMode: 0440}}
{{- end }}
{{- end -}}

{{/* Where a pod may go, and before whom. */}}
{{- define "sluice.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ quote . }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $ $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "sluice.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ quote . }}
{{- end }}
{{- end }}
{{- end -}}
