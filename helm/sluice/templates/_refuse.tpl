{{/* What the schema cannot say, because it is about two values: each is refused with a sentence that names them. */}}
{{- define "sluice.refuse" -}}
{{- $kafka := .Values.kafka -}}
{{- if and $kafka.sasl.mechanism (not $kafka.sasl.existingSecret) -}}
{{- fail (printf "kafka.sasl.existingSecret is empty with kafka.sasl.mechanism %s; accepted: the name of a secret that holds user name and password" $kafka.sasl.mechanism) -}}
{{- end -}}
{{- if ne (empty $kafka.tls.certKey) (empty $kafka.tls.keyKey) -}}
{{- fail (printf "kafka.tls.certKey is %q and kafka.tls.keyKey is %q; accepted: both, or neither" $kafka.tls.certKey $kafka.tls.keyKey) -}}
{{- end -}}
{{- if and $kafka.tls.certKey (not $kafka.tls.existingSecret) -}}
{{- fail (printf "kafka.tls.certKey is %q and kafka.tls.existingSecret is empty; accepted: the name of the secret that holds it" $kafka.tls.certKey) -}}
{{- end -}}
{{- if and .Values.doors.tls.existingSecret (not .Values.doors.tls.serverName) -}}
{{- fail (printf "doors.tls.serverName is empty with doors.tls.existingSecret %s; accepted: a name in its certificate, as pods call each other by addresses that no certificate can hold" .Values.doors.tls.existingSecret) -}}
{{- end -}}
{{- $root := . -}}
{{- range $service := list "generation" "verification" "difficulty" "learning" -}}
{{- $values := index $root.Values $service -}}
{{- $scaling := $values.autoscaling -}}
{{- if gt (int64 $scaling.min) (int64 $scaling.max) -}}
{{- fail (printf "%s.autoscaling.min is %d and max is %d; accepted: a min up to max" $service (int64 $scaling.min) (int64 $scaling.max)) -}}
{{- end -}}
{{- $most := sub (int64 $values.terminationGracePeriodSeconds) 10 -}}
{{- if gt (int64 $values.preStopSeconds) $most -}}
{{- fail (printf "%s.preStopSeconds is %d with terminationGracePeriodSeconds of %d; accepted: up to %d, which leaves 10 s to end in" $service (int64 $values.preStopSeconds) (int64 $values.terminationGracePeriodSeconds) $most) -}}
{{- end -}}
{{- end -}}
{{- include "sluice.refuseEngine" . -}}
{{- include "sluice.refuseRanks" . -}}
{{- end -}}

{{/* An engine that spreads its model has a GPU for each part. */}}
{{- define "sluice.refuseEngine" -}}
{{- $gpus := dig "limits" "nvidia.com/gpu" 0 .Values.generation.resources | int -}}
{{- $parts := dig "generation" "tensor_parallel" 1 .Values.run | int -}}
{{- if and $gpus (lt $gpus $parts) -}}
{{- fail (printf "generation has %d GPUs and run.generation.tensor_parallel is %d; accepted: a GPU for each part" $gpus $parts) -}}
{{- end -}}
{{- end -}}

{{/* Ranks and GPUs. With Ray, the chart's or one that the run file names, only rank 0 is in the learner's pod. */}}
{{- define "sluice.refuseRanks" -}}
{{- $ranks := dig "learning" "ranks" 1 .Values.run | int -}}
{{- $gpus := dig "limits" "nvidia.com/gpu" 0 .Values.learning.resources | int -}}
{{- $ray := .Values.learning.ray -}}
{{- if and $ray.enabled (lt $ranks 2) -}}
{{- fail (printf "learning.ray.enabled is true and run.learning.ranks is %d; accepted: two ranks or more, of which the first stays with the learner" $ranks) -}}
{{- end -}}
{{- $other := dig "learning" "ray" "" .Values.run -}}
{{- if and $ray.enabled $other -}}
{{- fail (printf "learning.ray.enabled is true and run.learning.ray is %s; accepted: the chart's cluster or another, not both" $other) -}}
{{- end -}}
{{- if and $other .Values.networkPolicy.enabled (not .Values.networkPolicy.rayPeers) -}}
{{- fail (printf "run.learning.ray is %s and networkPolicy.rayPeers is empty; accepted: peers that are its nodes, or networkPolicy.enabled false" $other) -}}
{{- end -}}
{{- if or $ray.enabled $other -}}
{{- if gt $gpus 1 -}}
{{- fail (printf "learning has %d GPUs and its other ranks are on Ray; accepted: one GPU, of rank 0, or none" $gpus) -}}
{{- end -}}
{{- else if and $gpus (ne $gpus $ranks) -}}
{{- fail (printf "learning has %d GPUs and run.learning.ranks is %d; accepted: a rank for each GPU" $gpus $ranks) -}}
{{- end -}}
{{- $others := include "sluice.rayGpus" . | int -}}
{{- if and $ray.enabled (ne (empty $gpus) (empty $others)) -}}
{{- fail (printf "learning has %d GPUs and learning.ray.worker has %d; accepted: GPUs for both, or for neither" $gpus $others) -}}
{{- end -}}
{{- end -}}
