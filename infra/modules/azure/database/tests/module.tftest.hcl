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
mock_provider "random" {}

variables {
  name       = "flightpath-test"
  region     = "westeurope"
  tags       = { team = "ml-platform", environment = "test", cost-center = "research" }
  network_id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/n"
  subnet_ids = ["/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/n/subnets/database"]
}

run "the_server_is_private_encrypted_and_protected" {
  command = plan

  assert {
    condition     = !azurerm_postgresql_flexible_server.this.public_network_access_enabled
    error_message = "there must be no public address"
  }

  assert {
    condition     = azurerm_postgresql_flexible_server_configuration.tls.value == "on"
    error_message = "TLS must be forced"
  }

  assert {
    condition     = length(azurerm_management_lock.this) == 1
    error_message = "the server must be locked"
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

run "a_disk_that_is_no_power_of_two_is_refused" {
  command = plan

  variables {
    storage_gb = 100
  }

  expect_failures = [var.storage_gb]
}

run "a_burstable_server_is_refused" {
  command = plan

  variables {
    size = "B_Standard_B1ms"
  }

  expect_failures = [var.size]
}
