{{- define "pushlet.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "pushlet.selector" -}}
app.kubernetes.io/name: pushlet
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pushlet.labels" -}}
{{ include "pushlet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
