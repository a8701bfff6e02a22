"""The contract's generated messages and stubs: proto/manyview/v1 compiled by `make proto`. The SDK wraps all of it."""
