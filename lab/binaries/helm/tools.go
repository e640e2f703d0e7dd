//go:build tools

// Package tools imports the command the laboratory builds, so that 'go mod tidy' keeps what it needs.
package tools

import (
	_ "helm.sh/helm/v4/cmd/helm"
)
