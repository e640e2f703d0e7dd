{{/*
Labels and annotations of an object: its own, and those that the values give to every object.
*/}}
{{- define "herald.metadata" -}}
{{- $labels := merge (dict) (.labels | default dict) .root.Values.commonLabels -}}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.commonAnnotations -}}
{{- with $labels }}
labels:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
The image of both programs: by digest where one is given.
*/}}
{{- define "herald.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{/*
Annotations of a program's pods. Programs read the setting of the ConfigMap when they start: a change replaces the pods.
*/}}
{{- define "herald.podAnnotations" -}}
{{- $annotations := deepCopy .of.podAnnotations -}}
{{- if .root.Values.includeExcludedNodes -}}
{{- $_ := set $annotations "heraldlb.io/include-excluded-nodes" "true" -}}
{{- end -}}
{{- with $annotations }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/*
Arguments of the controller.
*/}}
{{- define "herald.controllerArgs" -}}
{{- $args := list -}}
{{- if .Values.defaultProvider }}{{ $args = append $args "--default-provider" }}{{ end -}}
{{- with .Values.loadBalancerClasses }}{{ $args = append $args (printf "--lb-class=%s" (join "," .)) }}{{ end -}}
{{- if .Values.gatewayAddresses }}{{ $args = append $args "--gateway-addresses" }}{{ end -}}
{{- $args = concat $args .Values.controller.extraArgs -}}
{{- with $args }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/*
Arguments of the speakers.
*/}}
{{- define "herald.speakerArgs" -}}
{{- $args := list -}}
{{- with .Values.interfaces }}{{ $args = append $args (printf "--interfaces=%s" (join "," .)) }}{{ end -}}
{{- $args = concat $args .Values.speaker.extraArgs -}}
{{- with $args }}{{ toYaml . }}{{ end -}}
{{- end -}}
