package control

// operations is every call by the name it has in Amazon's model.
func operations() map[string]handler {
	return map[string]handler{
		"CreateWorkspace":      createWorkspace,
		"DescribeWorkspace":    describeWorkspace,
		"ListWorkspaces":       listWorkspaces,
		"UpdateWorkspaceAlias": updateWorkspaceAlias,
		"DeleteWorkspace":      deleteWorkspace,

		"CreateRuleGroupsNamespace":   createNamespace,
		"PutRuleGroupsNamespace":      putNamespace,
		"DescribeRuleGroupsNamespace": describeNamespace,
		"ListRuleGroupsNamespaces":    listNamespaces,
		"DeleteRuleGroupsNamespace":   deleteNamespace,

		"CreateAlertManagerDefinition":   createDefinition,
		"PutAlertManagerDefinition":      putDefinition,
		"DescribeAlertManagerDefinition": describeDefinition,
		"DeleteAlertManagerDefinition":   deleteDefinition,

		"TagResource":         tagResource,
		"UntagResource":       untagResource,
		"ListTagsForResource": listTags,

		"CreateLoggingConfiguration":   createLogging,
		"UpdateLoggingConfiguration":   updateLogging,
		"DescribeLoggingConfiguration": describeLogging,
		"DeleteLoggingConfiguration":   deleteLogging,

		"CreateQueryLoggingConfiguration":   createQueryLogging,
		"UpdateQueryLoggingConfiguration":   updateQueryLogging,
		"DescribeQueryLoggingConfiguration": describeQueryLogging,
		"DeleteQueryLoggingConfiguration":   deleteQueryLogging,

		"DescribeWorkspaceConfiguration": describeSettings,
		"UpdateWorkspaceConfiguration":   updateSettings,

		"PutResourcePolicy":      putPolicy,
		"DescribeResourcePolicy": describePolicy,
		"DeleteResourcePolicy":   deletePolicy,

		"CreateScraper":                  createScraper,
		"UpdateScraper":                  updateScraper,
		"DescribeScraper":                describeScraper,
		"ListScrapers":                   listScrapers,
		"DeleteScraper":                  deleteScraper,
		"GetDefaultScraperConfiguration": defaultScraperConfiguration,

		"UpdateScraperLoggingConfiguration":   putScraperLogging,
		"DescribeScraperLoggingConfiguration": describeScraperLogging,
		"DeleteScraperLoggingConfiguration":   deleteScraperLogging,
	}
}
