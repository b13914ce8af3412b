{{- define "machinebot.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "machinebot.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "machinebot.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "machinebot.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "machinebot.selectorLabels" -}}
app.kubernetes.io/name: {{ include "machinebot.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "machinebot.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "machinebot.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: machinebot
{{- end }}

{{- define "machinebot.serviceAccountName" -}}
{{- default (include "machinebot.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{/* Address of HTTPS that clients are told: by default the Service, as the cluster knows it. */}}
{{- define "machinebot.url" -}}
{{- if .Values.https.url }}
{{- .Values.https.url }}
{{- else }}
{{- printf "https://%s.%s.svc" (include "machinebot.fullname" .) .Release.Namespace }}
{{- with .Values.service.httpsPort }}{{ if ne (int .) 443 }}{{ printf ":%d" (int .) }}{{ end }}{{ end }}
{{- end }}
{{- end }}

{{/* The operator as the API server knows it. */}}
{{- define "machinebot.user" -}}
{{- printf "system:serviceaccount:%s:%s" .Release.Namespace (include "machinebot.serviceAccountName" .) }}
{{- end }}

{{- define "machinebot.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* The cluster name, which nobody but the user can choose. */}}
{{- define "machinebot.clusterName" -}}
{{- required "authority.clusterName must be set: a DNS name of your own for this cluster of identities, which cannot be changed later, such as --set authority.clusterName=example.test" .Values.authority.clusterName }}
{{- end }}

{{/* Audiences of the tokens that the operator may ask for, as a JSON list. */}}
{{- define "machinebot.audiences" -}}
{{- if .Values.fence.audiences }}
{{- .Values.fence.audiences | uniq | toJson }}
{{- else }}
{{- list (include "machinebot.clusterName" .) | toJson }}
{{- end }}
{{- end }}

{{/* Rules for one watched namespace, or for all of the cluster. */}}
{{- define "machinebot.tenantRules" -}}
- apiGroups: [machinebot.dev]
  resources: [machinebots, machineoutputs, machinejointokens]
  verbs: [get, list, watch]
- apiGroups: [machinebot.dev]
  resources: [machinebots/status, machineoutputs/status]
  verbs: [patch, update]
- apiGroups: [machinebot.dev]
  resources: [machinejointokens/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create]
- apiGroups: [""]
  resources: [serviceaccounts/token]
  verbs: [create]
- apiGroups: [apps]
  resources: [deployments, statefulsets, daemonsets]
  verbs: [patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, update, delete]
{{ include "machinebot.ownRules" . }}
{{- end }}

{{/* Rules that the operator needs in its own namespace too. */}}
{{- define "machinebot.ownRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, update, delete]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* Rules for what has no namespace. */}}
{{- define "machinebot.clusterRules" -}}
- apiGroups: [machinebot.dev]
  resources: [machineauthorities, machineroles, machinelocks]
  verbs: [get, list, watch]
- apiGroups: [machinebot.dev]
  resources: [machineauthorities/status, machineroles/status]
  verbs: [patch, update]
- apiGroups: [machinebot.dev]
  resources: [machinelocks/status]
  verbs: [patch]
- apiGroups: [machinebot.dev]
  resources: [machinelocks]
  verbs: [create] # of an instance whose identity was copied, and of nothing else: see the fence
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
{{- end }}

{{/* A binding's subject: the operator. */}}
{{- define "machinebot.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "machinebot.serviceAccountName" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}

{{/* What makes a fence: it matches the operator's user, and nobody else's requests are looked at. */}}
{{- define "machinebot.fenceMatch" -}}
failurePolicy: Fail
matchConditions:
  - name: by-the-operator
    expression: request.userInfo.username == {{ include "machinebot.user" . | squote }}
{{- end }}

{{/* The fences' rules about namespaces. Takes a dictionary: root, own (whether the operator's own namespace is allowed). */}}
{{- define "machinebot.fenceNamespaces" -}}
{{- $own := .root.Release.Namespace }}
{{- $watched := .root.Values.watchNamespaces }}
{{- $refused := .root.Values.fence.refusedNamespaces }}
{{- if .own }}
{{- $refused = without $refused $own }}
{{- end }}
{{- with $refused }}
- expression: "!(request.namespace in {{ toJson . | replace "\"" "'" }})"
  message: The operator may not write in this namespace; see fence.refusedNamespaces in the chart's values.
  reason: Forbidden
{{- end }}
{{- if $watched }}
- expression: request.namespace in {{ ternary (append $watched $own) $watched .own | uniq | toJson | replace "\"" "'" }}
  message: The operator may not write in this namespace; see watchNamespaces in the chart's values.
  reason: Forbidden
{{- end }}
{{- end }}

{{/* A policy's binding: it holds everywhere and refuses. Takes the policy's name and the root. */}}
{{- define "machinebot.policyBinding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels: {{- include "machinebot.labels" .root | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- end }}
