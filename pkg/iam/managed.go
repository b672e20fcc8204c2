package iam

import "strings"

// managed are the policies that exist without anybody making them, by name.
func managed() map[string]string {
	query := `"aps:GetLabels","aps:GetMetricMetadata","aps:GetSeries","aps:QueryMetrics"`
	workspaces := `"aps:CreateWorkspace","aps:DescribeWorkspace","aps:UpdateWorkspaceAlias","aps:DeleteWorkspace","aps:ListWorkspaces"`
	definitions := `"aps:CreateAlertManagerDefinition","aps:PutAlertManagerDefinition","aps:DescribeAlertManagerDefinition","aps:DeleteAlertManagerDefinition",` +
		`"aps:CreateRuleGroupsNamespace","aps:PutRuleGroupsNamespace","aps:DescribeRuleGroupsNamespace","aps:DeleteRuleGroupsNamespace","aps:ListRuleGroupsNamespaces"`
	newer := `"aps:TagResource","aps:UntagResource","aps:*LoggingConfiguration","aps:*WorkspaceConfiguration"`
	return map[string]string{
		"AdministratorAccess":               `"*"`,
		"AmazonPrometheusFullAccess":        `"aps:*"`,
		"AmazonPrometheusQueryAccess":       query,
		"AmazonPrometheusRemoteWriteAccess": `"aps:RemoteWrite"`,
		"AmazonPrometheusConsoleFullAccess": `"tag:GetTagValues","tag:GetTagKeys",` + workspaces + "," + definitions + "," + newer,
		"AliyunPrometheusMetricReadAccess":  query,
		"AliyunPrometheusMetricWriteAccess": `"aps:RemoteWrite"`,
		"AliyunCloudMonitorFullAccess":      `"aps:*"`,
		"AliyunCloudMonitorReadOnlyAccess":  query + `,"aps:List*","aps:Describe*","aps:Get*"`,
		"AmphoraOperatorAccess":             `"amphora:*"`,
		"AmphoraScrapeAccess":               `"amphora:Scrape"`,
	}
}

// Managed returns the document of the built-in policy of that name or ARN; empty: there is none.
func Managed(name string) string {
	for _, prefix := range []string{"arn:aws:iam::aws:policy/", "acs:ram::system:policy/"} {
		name = strings.TrimPrefix(name, prefix)
	}
	actions, ok := managed()[name]
	if !ok {
		return ""
	}
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[` + actions + `],"Resource":"*"}]}`
}
