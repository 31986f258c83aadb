/** Frozen view of the configuration: an argument of every mail, so one mail has one policy. */
import type { NextHop } from '../message/nexthop.ts'
import { initialSettings, type Settings } from './schema.ts'

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
}

export type Snapshot = {
  readonly settings: Settings
  readonly domains: ReadonlyMap<string, Domain>
}

export const EMPTY_SNAPSHOT: Snapshot = Object.freeze({
  settings: Object.freeze(initialSettings()),
  domains: new Map(),
})
