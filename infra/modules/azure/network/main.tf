# A region's network: nodes have private addresses only and go out through NAT; databases have a subnet of their own.

locals {
  tags          = merge(var.tags, { module = "network" })
  private_cidr  = cidrsubnet(var.cidr, 1, 0)
  public_cidr   = cidrsubnet(var.cidr, 6, 62)
  database_cidr = cidrsubnet(var.cidr, 6, 61)
}

resource "azurerm_resource_group" "this" {
  name     = "${var.name}-network"
  location = var.region
  tags     = local.tags
}

resource "azurerm_virtual_network" "this" {
  name                = var.name
  resource_group_name = azurerm_resource_group.this.name
  location            = var.region
  address_space       = [var.cidr]
  tags                = local.tags
}

resource "azurerm_subnet" "private" {
  name                            = "private"
  resource_group_name             = azurerm_resource_group.this.name
  virtual_network_name            = azurerm_virtual_network.this.name
  address_prefixes                = [local.private_cidr]
  default_outbound_access_enabled = false
  service_endpoints               = ["Microsoft.Storage", "Microsoft.KeyVault"]
}

resource "azurerm_subnet" "public" {
  name                            = "public"
  resource_group_name             = azurerm_resource_group.this.name
  virtual_network_name            = azurerm_virtual_network.this.name
  address_prefixes                = [local.public_cidr]
  default_outbound_access_enabled = false
}

resource "azurerm_subnet" "database" {
  name                            = "database"
  resource_group_name             = azurerm_resource_group.this.name
  virtual_network_name            = azurerm_virtual_network.this.name
  address_prefixes                = [local.database_cidr]
  default_outbound_access_enabled = false

  delegation {
    name = "postgresql"
    service_delegation {
      name    = "Microsoft.DBforPostgreSQL/flexibleServers"
      actions = ["Microsoft.Network/virtualNetworks/subnets/join/action"]
    }
  }
}

# Azure lets a network's own members and its load balancers in, and denies the rest; web traffic is let in to the
# public subnet alone.
resource "azurerm_network_security_group" "private" {
  name                = "${var.name}-private"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.region
  tags                = local.tags
}

resource "azurerm_network_security_group" "public" {
  name                = "${var.name}-public"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.region
  tags                = local.tags

  security_rule {
    name                       = "https"
    priority                   = 100
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "Tcp"
    source_port_range          = "*"
    source_address_prefix      = "Internet"
    destination_port_range     = "443"
    destination_address_prefix = local.public_cidr
  }
}

resource "azurerm_subnet_network_security_group_association" "this" {
  for_each = {
    private  = { subnet = azurerm_subnet.private.id, group = azurerm_network_security_group.private.id }
    public   = { subnet = azurerm_subnet.public.id, group = azurerm_network_security_group.public.id }
    database = { subnet = azurerm_subnet.database.id, group = azurerm_network_security_group.private.id }
  }
  subnet_id                 = each.value.subnet
  network_security_group_id = each.value.group
}

resource "azurerm_public_ip" "nat" {
  name                = "${var.name}-nat"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.region
  allocation_method   = "Static"
  sku                 = "Standard"
  zones               = [var.zones[0]]
  tags                = local.tags
}

resource "azurerm_nat_gateway" "this" {
  name                = var.name
  resource_group_name = azurerm_resource_group.this.name
  location            = var.region
  sku_name            = "Standard"
  zones               = [var.zones[0]]
  tags                = local.tags
}

resource "azurerm_nat_gateway_public_ip_association" "this" {
  nat_gateway_id       = azurerm_nat_gateway.this.id
  public_ip_address_id = azurerm_public_ip.nat.id
}

resource "azurerm_subnet_nat_gateway_association" "private" {
  subnet_id      = azurerm_subnet.private.id
  nat_gateway_id = azurerm_nat_gateway.this.id
}

resource "azurerm_virtual_network_peering" "this" {
  for_each                  = var.peers
  name                      = "${var.name}-to-${each.key}"
  resource_group_name       = azurerm_resource_group.this.name
  virtual_network_name      = azurerm_virtual_network.this.name
  remote_virtual_network_id = each.value.network_id
  allow_forwarded_traffic   = false
}
