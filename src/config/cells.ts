/**
 * The cells that hold what an operator may set: their names, and how several values of one are
 * read. The same on every node, for ever: a later version may add names and never changes these.
 */

import { type Cell, type Head, headInForce, isConflict, type Reading } from './merge.ts'
import { DETECTION_KINDS } from './rules.ts'
import { SIGNING_KIND } from './signing.ts'

/** What a snapshot is made of. */
export const CONFIG_KINDS = ['setting', 'domain', 'list', ...DETECTION_KINDS, SIGNING_KIND] as const
/** Every kind in which two values may stand beside each other until somebody keeps one. */
export const CELL_KINDS = [...CONFIG_KINDS, 'operator', 'apitoken'] as const

/** A domain is a cell of its own and one for each group of fields that must match. */
export const DOMAIN_GROUPS = ['nextHops', 'recipients', 'policy'] as const
export type DomainGroup = (typeof DOMAIN_GROUPS)[number]

/** `example.com/policy` as the name and the group; the group is empty for the domain itself. */
export function domainOfKey(key: string): readonly [name: string, group: string] {
  const slash = key.indexOf('/')
  return slash < 0 ? [key, ''] : [key.slice(0, slash), key.slice(slash + 1)]
}

/**
 * What wins of a change and a deletion that did not see each other: a domain stays, a block
 * stays, an allowance goes, an operator, an API token and a signing key go. Else the later one.
 */
function readingOf(kind: string, key: string): Reading {
  switch (kind) {
    case 'domain':
      return key.includes('/') ? 'latest' : 'present-wins'
    case 'list':
      return key.startsWith('allow/') ? 'absent-wins' : 'present-wins'
    case 'operator':
      return key.includes('/') ? 'latest' : 'absent-wins'
    case 'apitoken':
    case SIGNING_KIND:
      return 'absent-wins'
    default:
      return 'latest'
  }
}

export function forceOf(kind: string, key: string, cell: Cell): Head {
  return headInForce(cell, readingOf(kind, key))
}

/**
 * Values that a person must choose from. Two notes on one entry of a list are none; nor is a
 * signing key that was removed, whose private part is gone.
 */
export function isDisputed(kind: string, cell: Cell): boolean {
  if (kind === SIGNING_KIND && cell.heads.some(({ value }) => value === null)) return false
  if (kind !== 'list') return isConflict(cell)
  return new Set(cell.heads.map(({ value }) => value === null)).size > 1
}
