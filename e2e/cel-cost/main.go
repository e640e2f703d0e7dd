// Command cel-cost prints the costs that the API server estimates for the CEL rules of CustomResourceDefinitions, rule
// by rule, as a Markdown table, and fails if the API server would refuse one of them. Its arguments are files with one
// definition each.
//
// The estimate is the API server's own: this program walks a schema like ValidateCustomResourceDefinitionOpenAPISchema
// (k8s.io/apiextensions-apiserver, pkg/apis/apiextensions/validation), which reports only what exceeds a limit.
//
// It is built in the module of the laboratory's Kubernetes, so that both have the same version: `make cel-cost`.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// A rule is one entry of x-kubernetes-validations, with the place of its schema.
type rule struct {
	place, text string
	// The costs of one evaluation, and of as many as an object may need.
	once, all uint64
	times     string
}

func main() {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	decoder := serializer.NewCodecFactory(scheme).UniversalDecoder()
	fmt.Println("| rule | times at most | cost of one | cost of all | of the limit |")
	fmt.Println("|---|---|---|---|---|")
	for _, file := range os.Args[1:] {
		text, err := os.ReadFile(file)
		if err != nil {
			fail(err)
		}
		var definition apiextensions.CustomResourceDefinition
		if err := runtime.DecodeInto(decoder, text, &definition); err != nil {
			fail(fmt.Errorf("%s: %w", file, err))
		}
		if errors := validation.ValidateCustomResourceDefinition(context.Background(), &definition); len(errors) > 0 {
			fail(fmt.Errorf("%s: the API server refuses it: %w", file, errors.ToAggregate()))
		}
		if err := tell(&definition); err != nil {
			fail(fmt.Errorf("%s: %w", file, err))
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// tell prints a row for each rule of a definition, and one for their sum.
func tell(definition *apiextensions.CustomResourceDefinition) error {
	kind := definition.Spec.Names.Kind
	rules := []rule{}
	for _, version := range definition.Spec.Versions {
		served := version.Schema
		if served == nil {
			served = definition.Spec.Validation
		}
		schema := served.OpenAPIV3Schema
		found, err := rulesBelow(schema, kind, validation.RootCELContext(schema))
		if err != nil {
			return err
		}
		rules = append(rules, found...)
	}
	var total uint64
	for _, r := range rules {
		total += r.all
		share := percent(r.all, validation.StaticEstimatedCostLimit)
		fmt.Printf("| `%s`: `%s` | %s | %d | %d | %s |\n", r.place, short(r.text), r.times, r.once, r.all, share)
	}
	if len(rules) > 0 {
		fmt.Printf("| %s: all %d | | | %d | %s |\n", kind, len(rules), total, percent(total, validation.StaticEstimatedCRDCostLimit))
	}
	return nil
}

func percent(cost, limit uint64) string {
	return fmt.Sprintf("%.3f %%", 100*float64(cost)/float64(limit))
}

// short returns as much of a rule as fits a table.
func short(text string) string {
	const most = 40
	if len(text) > most {
		text = text[:most] + "..."
	}
	return strings.ReplaceAll(text, "|", "\\|")
}

// rulesBelow returns the rules of a schema and of those below it.
func rulesBelow(schema *apiextensions.JSONSchemaProps, place string, at *validation.CELSchemaContext) ([]rule, error) {
	rules, err := rulesOf(schema, place, at)
	if err != nil {
		return nil, err
	}
	add := func(child *apiextensions.JSONSchemaProps, place string, at *validation.CELSchemaContext) error {
		below, err := rulesBelow(child, place, at)
		rules = append(rules, below...)
		return err
	}
	fields := []string{}
	for field := range schema.Properties {
		fields = append(fields, field)
	}
	slices.Sort(fields)
	for _, field := range fields {
		child := schema.Properties[field]
		if err := add(&child, place+"."+field, at.ChildPropertyContext(&child, field)); err != nil {
			return nil, err
		}
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
		child := schema.AdditionalProperties.Schema
		if err := add(child, place+"{}", at.ChildAdditionalPropertiesContext(child)); err != nil {
			return nil, err
		}
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		child := schema.Items.Schema
		if err := add(child, place+"[]", at.ChildItemsContext(child)); err != nil {
			return nil, err
		}
	}
	return rules, nil
}

func rulesOf(schema *apiextensions.JSONSchemaProps, place string, at *validation.CELSchemaContext) ([]rule, error) {
	if len(schema.XValidations) == 0 {
		return nil, nil
	}
	info, err := at.TypeInfo()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	environments := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
	results, err := cel.Compile(info.Schema, info.DeclType, celconfig.PerCallLimit, environments, cel.NewExpressionsEnvLoader())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	rules := []rule{}
	for i, result := range results {
		// Below an unbounded list: as many evaluations as fit in a request.
		cardinality, times := result.MaxCardinality, "unbounded"
		if at.MaxCardinality != nil {
			cardinality, times = *at.MaxCardinality, fmt.Sprint(*at.MaxCardinality)
		}
		rules = append(rules, rule{place: place, text: schema.XValidations[i].Rule, once: result.MaxCost, all: result.MaxCost * cardinality, times: times})
	}
	return rules, nil
}
