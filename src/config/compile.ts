/**
 * From the cells of the configuration to the snapshot that they make, or to what keeps them from
 * making one. Merged cells may never have been seen together by any person, so this happens off
 * to the side and says what does not hold. Pure.
 */
import { RefusalError } from '../base/errors.ts'
import { DOMAIN_GROUPS, type DomainGroup, domainOfKey } from './cells.ts'
import {
  type Detection,
  type DetectionKind,
  ENTRY_NAME,
  memberOf,
  NO_DETECTION,
  RULE_NAME,
  type Rule,
  readMap,
  readRule,
  readScore,
  readYara,
} from './rules.ts'
import {
  checkTogether,
  initialSettings,
  isSettingKey,
  type SettingKey,
  type Settings,
  type SettingValue,
  TOGETHER,
} from './schema.ts'
import { readSigningKey, SIGNING_KIND, type SigningKey } from './signing.ts'
import { type Domain, type Lists, NO_LISTS, type Snapshot } from './snapshot.ts'
import { checkDomain, readDomainGroup, readDomainName, readSetting } from './validate.ts'

export type Trouble = {
  /** The cells that do not hold, alone or together: `setting/policy.hold`. At least one. */
  readonly cells: readonly string[]
  readonly refusal: RefusalError
}

export class Draft {
  /** By name of the cell; only cells that this version knows. */
  readonly #texts = new Map<string, string>()
  readonly #settings = new Map<SettingKey, SettingValue>()
  /** What the groups say, also of domains that are not there. */
  readonly #groups = new Map<string, Partial<Domain>>()
  readonly #domains = new Map<string, Domain>()
  readonly #unreadable = new Map<string, RefusalError>()
  readonly #names = new Set<string>()
  /** The lists as they were compiled last, and their cells that changed since. */
  #lists: Lists = NO_LISTS
  readonly #relisted = new Set<string>()
  #listed = 0
  /** By kind and name. */
  readonly #detected = {
    rule: new Map<string, Rule>(),
    score: new Map<string, number>(),
    map: new Map<string, readonly string[]>(),
    yara: new Map<string, string>(),
  }
  readonly #signing = new Map<string, SigningKey>()
  /** As `compile` gave it last; a part is null when its cells have changed since. */
  #compiled: { -readonly [Part in keyof Snapshot]: Snapshot[Part] | null } = {
    settings: null,
    domains: null,
    lists: NO_LISTS,
    detection: NO_DETECTION,
    signing: [],
  }

  /** JSON of a cell, as it was put; null: not there. */
  text(cell: string): string | null {
    return this.#texts.get(cell) ?? null
  }

  get texts(): ReadonlyMap<string, string> {
    return this.#texts
  }

  /** The fields of a domain as its cells say them, whether it is there or not. */
  fields(name: string): Domain {
    const groups = DOMAIN_GROUPS.map((group) => this.#groups.get(`domain/${name}/${group}`))
    return Object.freeze(Object.assign(newDomain(name), ...groups))
  }

  /** Keys of the cells of its signing keys, those that cannot be read too. */
  signingOf(domain: string): readonly string[] {
    const prefix = `${SIGNING_KIND}/${domain}/`
    const cells = [...this.#texts.keys()].filter((cell) => cell.startsWith(prefix)).sort()
    return cells.map((cell) => cell.slice(SIGNING_KIND.length + 1))
  }

  /** Domains, those that cannot be read too. */
  get domainCount(): number {
    return this.#names.size
  }

  /** Entries of both lists. */
  get listedCount(): number {
    return this.#listed
  }

  /** What the cell says from here on; null: deleted. Cells of a later version are left alone. */
  put(kind: string, key: string, text: string | null): void {
    const cell = `${kind}/${key}`
    const before = this.text(cell)
    if (!isKnown(kind, key) || before === text) return
    if (text === null) this.#texts.delete(cell)
    else this.#texts.set(cell, text)
    this.#unreadable.delete(cell)
    switch (kind) {
      case 'setting':
        return this.#putSetting(cell, key as SettingKey, text)
      case 'domain':
        return this.#putDomain(cell, key, text)
      case 'list':
        this.#compiled.lists = null
        this.#relisted.add(cell)
        this.#listed += (text === null ? 0 : 1) - (before === null ? 0 : 1)
        return
      case SIGNING_KIND:
        this.#compiled.signing = null
        this.#signing.delete(key)
        if (text === null) return
        return this.#read(cell, () => this.#signing.set(key, readSigningKey(key, JSON.parse(text))))
      default:
        return this.#putDetection(cell, kind as DetectionKind, key, text)
    }
  }

  /** Cells of a kind of detection. */
  detectionCount(kind: DetectionKind): number {
    return this.#detected[kind].size
  }

  #putDetection(cell: string, kind: DetectionKind, key: string, text: string | null): void {
    this.#compiled.detection = null
    const { rule, score, map, yara } = this.#detected
    this.#detected[kind].delete(key)
    if (text === null) return
    this.#read(cell, () => {
      const raw: unknown = JSON.parse(text)
      if (kind === 'rule') rule.set(key, readRule(key, raw))
      else if (kind === 'score') score.set(key, readScore(memberOf(raw, 'score')))
      else if (kind === 'map') map.set(key, readMap(memberOf(raw, 'entries')))
      else yara.set(key, readYara(memberOf(raw, 'source')))
    })
  }

  /** Empty: `compile` gives a snapshot that holds. */
  troubles(): readonly Trouble[] {
    const troubles: Trouble[] = []
    for (const [cell, refusal] of this.#unreadable) {
      const [name] = domainOfKey(cell.slice(cell.indexOf('/') + 1))
      // What is left of a domain that was removed troubles nobody.
      if (!cell.startsWith('domain/') || this.#texts.has(`domain/${name}`))
        troubles.push({ cells: [cell], refusal })
    }
    const settings = this.#settled()
    for (const pair of TOGETHER) {
      const refusal = refusalOf(() => checkTogether(settings, pair[0]))
      if (refusal !== null) troubles.push({ cells: pair.map((key) => `setting/${key}`), refusal })
    }
    for (const domain of this.#domains.values()) {
      // Without thresholds of its own it has those of the settings, which were looked at above.
      if (domain.hold === null && domain.reject === null) continue
      const refusal = refusalOf(() => checkDomain(domain, settings))
      if (refusal === null) continue
      const cells = [`domain/${domain.name}/policy`]
      if (domain.hold === null) cells.push('setting/policy.hold')
      if (domain.reject === null) cells.push('setting/policy.reject')
      troubles.push({ cells, refusal })
    }
    return troubles
  }

  /** Holds when there are no troubles. Parts whose cells did not change are the same objects. */
  compile(): Snapshot {
    const compiled = this.#compiled
    compiled.settings ??= this.#settled()
    compiled.domains ??= new Map(this.#domains)
    compiled.lists ??= this.#relist()
    compiled.detection ??= this.#detection()
    compiled.signing ??= Object.freeze(sorted(this.#signing).map(([, key]) => key))
    const { settings, domains, lists, detection, signing } = compiled
    return { settings, domains, lists, detection, signing }
  }

  #putSetting(cell: string, key: SettingKey, text: string | null): void {
    this.#compiled.settings = null
    this.#settings.delete(key)
    if (text === null) return
    this.#read(cell, () => this.#settings.set(key, readSetting(key, JSON.parse(text))))
  }

  #putDomain(cell: string, key: string, text: string | null): void {
    this.#compiled.domains = null
    const [name, group] = domainOfKey(key)
    if (group === '') {
      if (text === null) this.#names.delete(name)
      else this.#names.add(name)
      if (text !== null) {
        this.#read(cell, () => {
          if (readDomainName(name) !== name) throw new SyntaxError('not in stored form')
        })
      }
    } else {
      this.#groups.delete(cell)
      if (text !== null) {
        this.#read(cell, () =>
          this.#groups.set(cell, readDomainGroup(name, group as DomainGroup, JSON.parse(text))),
        )
      }
    }
    this.#assemble(name)
  }

  #assemble(name: string): void {
    const cell = `domain/${name}`
    const isWhole =
      this.#texts.has(cell) &&
      !this.#unreadable.has(cell) &&
      DOMAIN_GROUPS.every((group) => !this.#unreadable.has(`${cell}/${group}`))
    if (isWhole) this.#domains.set(name, this.fields(name))
    else this.#domains.delete(name)
  }

  #read(cell: string, act: () => void): void {
    const refusal = refusalOf(act)
    if (refusal === null) return
    const { message, advice } = refusal
    this.#unreadable.set(
      cell,
      new RefusalError('invalid', null, `${cell} cannot be used: ${message}`, advice),
    )
  }

  #settled(): Settings {
    // The map of all settings is typed by key; each comes from the reader of its key.
    const own = Object.fromEntries(this.#settings)
    return Object.freeze({ ...initialSettings(), ...own }) as unknown as Settings
  }

  /** In the order of names: the same cells are the same value on every node. */
  #detection(): Detection {
    const { rule, score, map, yara } = this.#detected
    return Object.freeze({
      rules: sorted(rule).map(([, rule]) => rule),
      scores: Object.fromEntries(sorted(score)),
      maps: Object.fromEntries(sorted(map)),
      yara: Object.fromEntries(sorted(yara)),
    })
  }

  #relist(): Lists {
    const { allowedClients, blockedClients, blockedSenders, allowedSenders } = this.#lists
    const clients = this.#relistedWith('list/block/ip/')
    const allowed = this.#relistedWith('list/allow/ip/')
    const senders = (before: ReadonlySet<string>, prefix: string): ReadonlySet<string> => {
      const { removed, added } = this.#relistedWith(prefix)
      const after = new Set(before)
      for (const value of removed) after.delete(value)
      for (const value of added) after.add(value)
      return after
    }
    const blockedNow = senders(blockedSenders, 'list/block/sender/')
    const allowedNow = senders(allowedSenders, 'list/allow/sender/')
    this.#relisted.clear()
    this.#lists = Object.freeze({
      allowedClients: allowedClients.changed(allowed.removed, allowed.added),
      blockedClients: blockedClients.changed(clients.removed, clients.added),
      blockedSenders: blockedNow,
      allowedSenders: allowedNow,
    })
    return this.#lists
  }

  #relistedWith(prefix: string): { readonly removed: string[]; readonly added: string[] } {
    const removed: string[] = []
    const added: string[] = []
    for (const cell of this.#relisted) {
      if (!cell.startsWith(prefix)) continue
      const values = this.#texts.has(cell) ? added : removed
      values.push(cell.slice(prefix.length))
    }
    return { removed, added }
  }
}

/** A domain of which nothing was said: by MX, any recipient, the thresholds of the settings. */
export function newDomain(name: string): Domain {
  return { name, nextHops: [], recipients: null, hold: null, reject: null, enforce: null }
}

function sorted<Value>(entries: ReadonlyMap<string, Value>): (readonly [string, Value])[] {
  return [...entries].sort(([a], [b]) => (a < b ? -1 : 1))
}

function isKnown(kind: string, key: string): boolean {
  switch (kind) {
    case 'setting':
      return isSettingKey(key)
    case 'domain': {
      const [, group] = domainOfKey(key)
      return group === '' || (DOMAIN_GROUPS as readonly string[]).includes(group)
    }
    case 'list':
      return /^(?:allow|block)\/(?:ip|sender)\/./.test(key)
    case 'rule':
    case 'score':
      return RULE_NAME.test(key)
    case 'map':
    case 'yara':
      return ENTRY_NAME.test(key)
    case SIGNING_KIND:
      return /^[a-z0-9_.-]{1,253}\/[a-z0-9-]{1,40}$/.test(key)
    default:
      return false
  }
}

function refusalOf(act: () => void): RefusalError | null {
  try {
    act()
    return null
  } catch (error) {
    if (error instanceof RefusalError) return error
    if (!(error instanceof SyntaxError)) throw error
    return new RefusalError('invalid', null, 'It is damaged.', 'Enter it anew.')
  }
}
