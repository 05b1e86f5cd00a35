# With mock providers: rules of inputs, and what the plan says of encryption and reach.

mock_provider "azurerm" {
  mock_data "azurerm_client_config" {
    defaults = {
      tenant_id       = "00000000-0000-0000-0000-000000000001"
      subscription_id = "00000000-0000-0000-0000-000000000002"
      object_id       = "00000000-0000-0000-0000-000000000003"
    }
  }
}

variables {
  name   = "flightpath-test"
  region = "westeurope"
  tags   = { team = "ml-platform", environment = "test", cost-center = "research" }
}

run "blobs_are_versioned_encrypted_and_never_public" {
  command = plan

  assert {
    condition     = !azurerm_storage_account.this["primary"].allow_nested_items_to_be_public
    error_message = "blobs must never be public"
  }

  assert {
    condition     = !azurerm_storage_account.this["primary"].shared_access_key_enabled
    error_message = "there must be no account keys"
  }

  assert {
    condition     = azurerm_storage_account.this["primary"].blob_properties[0].versioning_enabled
    error_message = "blobs must be versioned"
  }

  assert {
    condition     = length(azurerm_management_lock.this) == 1
    error_message = "the account must be locked"
  }
}

run "a_replica_gets_every_blob" {
  command = plan

  variables {
    replica_region = "northeurope"
  }

  assert {
    condition     = length(azurerm_storage_account.this) == 2
    error_message = "there must be two accounts"
  }

  assert {
    condition     = length(azurerm_storage_object_replication.this) == 1
    error_message = "blobs must be copied"
  }
}

run "a_name_with_capitals_is_refused" {
  command = plan

  variables {
    name = "Flightpath"
  }

  expect_failures = [var.name]
}

run "a_missing_tag_is_refused" {
  command = plan

  variables {
    tags = { team = "ml-platform" }
  }

  expect_failures = [var.tags]
}

run "a_replica_in_the_same_region_is_refused" {
  command = plan

  variables {
    replica_region = "westeurope"
  }

  expect_failures = [var.replica_region]
}
