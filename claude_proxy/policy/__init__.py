"""Pure decisions: rules, the index of rules, requests and the reasons for each decision."""
