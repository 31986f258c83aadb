/** Frozen view of the configuration: an argument of every mail, so one mail has one policy. */
import type { NextHop } from '../message/nexthop.ts'
import { NetworkIndex } from './networks.ts'
import { type Detection, NO_DETECTION } from './rules.ts'
import { initialSettings, type Settings } from './schema.ts'
import type { SigningKey } from './signing.ts'

export type Domain = {
  /** Lower case, A-label form, no trailing dot. Matches exactly: no subdomains. */
  readonly name: string
  /** In order of priority; empty: deliver by MX. */
  readonly nextHops: readonly NextHop[]
  /** Known recipients as local parts in lower case; null: any (the next hop decides). */
  readonly recipients: readonly string[] | null
  /** Thresholds of this domain; null: those of the settings. */
  readonly hold: number | null
  readonly reject: number | null
  /** Whether DMARC of the author's domain is enforced for its recipients; null: as the settings say. */
  readonly enforce: boolean | null
}

/** Who is let in or kept out, whatever the score. */
export type Lists = {
  readonly allowedClients: NetworkIndex
  readonly blockedClients: NetworkIndex
  /** `a@b` or `@b`, in lower case and A-labels. */
  readonly blockedSenders: ReadonlySet<string>
  /** The same; let in only where somebody vouches for the author (decide/listing). */
  readonly allowedSenders: ReadonlySet<string>
}

export type Snapshot = {
  readonly settings: Settings
  readonly domains: ReadonlyMap<string, Domain>
  readonly lists: Lists
  readonly detection: Detection
  /** By domain and selector. */
  readonly signing: readonly SigningKey[]
}

/** Names of domains that are new or not as they were. */
export function changedDomains({ domains }: Snapshot, before: Snapshot): ReadonlySet<string> {
  if (domains === before.domains) return new Set()
  // A domain whose cells did not change is the same object.
  const changed = [...domains].filter(([name, domain]) => before.domains.get(name) !== domain)
  return new Set(changed.map(([name]) => name))
}

export const NO_LISTS: Lists = Object.freeze({
  allowedClients: new NetworkIndex([]),
  blockedClients: new NetworkIndex([]),
  blockedSenders: new Set<string>(),
  allowedSenders: new Set<string>(),
})

export const EMPTY_SNAPSHOT: Snapshot = Object.freeze({
  settings: Object.freeze(initialSettings()),
  domains: new Map(),
  lists: NO_LISTS,
  detection: NO_DETECTION,
  signing: [],
})
