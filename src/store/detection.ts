/**
 * What an operator adds to detection: rules, scores, maps and YARA sources. Each is a cell of its
 * own, so that two nodes can change different ones at the same time; of the same one the later
 * change is in force, and both are shown until somebody keeps one.
 */
import { RefusalError } from '../base/errors.ts'
import { forceOf } from '../config/cells.ts'
import { namesIn, parseExpression } from '../config/expression.ts'
import type { LiveConfig } from '../config/live.ts'
import {
  DETECTION_MAX,
  type DetectionKind,
  type Rule,
  readEntryName,
  readMap,
  readRule,
  readRuleName,
  readScore,
  readYara,
} from '../config/rules.ts'
import { wallMsOf } from '../config/stamp.ts'
import type { Changes } from './changes.ts'
import type { SharedRows } from './shared.ts'

type Stamped = { readonly by: string; readonly changedMs: number }
export type RuleRow = Rule & Stamped
export type ScoreRow = Stamped & { readonly rule: string; readonly score: number }
export type MapRow = Stamped & { readonly name: string; readonly entries: readonly string[] }
export type YaraRow = Stamped & { readonly name: string; readonly source: string }

export class DetectionStore {
  readonly #rows: SharedRows
  readonly #changes: Changes
  readonly #live: LiveConfig

  constructor(rows: SharedRows, changes: Changes, live: LiveConfig) {
    this.#rows = rows
    this.#changes = changes
    this.#live = live
  }

  /** By name. @throws StoreError */
  rules(): readonly RuleRow[] {
    return this.#live.current.detection.rules.map((rule) => ({
      ...rule,
      ...this.#stamp('rule', rule.name),
    }))
  }

  scores(): readonly ScoreRow[] {
    return Object.entries(this.#live.current.detection.scores).map(([rule, score]) => ({
      rule,
      score,
      ...this.#stamp('score', rule),
    }))
  }

  maps(): readonly MapRow[] {
    return Object.entries(this.#live.current.detection.maps).map(([name, entries]) => ({
      name,
      entries,
      ...this.#stamp('map', name),
    }))
  }

  yara(): readonly YaraRow[] {
    return Object.entries(this.#live.current.detection.yara).map(([name, source]) => ({
      name,
      source,
      ...this.#stamp('yara', name),
    }))
  }

  /**
   * Adds a rule or replaces it; in force for the next mail, on this node at once. A rule that is
   * there already as it is given is no change.
   * @throws RefusalError invalid, with the field; StoreError
   */
  putRule(author: string, name: string, input: unknown): RuleRow {
    const rule = readRule(name, input)
    this.#refuseCircle(rule)
    const { score, on, describe, look } = rule
    this.#put(author, 'rule', rule.name, JSON.stringify({ score, on, describe, look }))
    return { ...rule, ...this.#stamp('rule', rule.name) }
  }

  /** @throws RefusalError invalid, StoreError */
  putScore(author: string, rule: string, score: unknown): ScoreRow {
    const name = readRuleName(rule)
    const value = readScore(score)
    this.#put(author, 'score', name, JSON.stringify({ score: value }))
    return { rule: name, score: value, ...this.#stamp('score', name) }
  }

  /** @throws RefusalError invalid, StoreError */
  putMap(author: string, rawName: string, raw: unknown): MapRow {
    const name = readEntryName(rawName)
    const entries = readMap(raw)
    this.#put(author, 'map', name, JSON.stringify({ entries }))
    return { name, entries, ...this.#stamp('map', name) }
  }

  /** The source is checked by whoever can compile it. @throws RefusalError invalid, StoreError */
  putYara(author: string, rawName: string, raw: unknown): YaraRow {
    const name = readEntryName(rawName)
    const source = readYara(raw)
    this.#put(author, 'yara', name, JSON.stringify({ source }))
    return { name, source, ...this.#stamp('yara', name) }
  }

  /** @throws RefusalError notFound, StoreError */
  remove(author: string, kind: DetectionKind, rawName: string): void {
    const isRule = kind === 'rule' || kind === 'score'
    const name = isRule ? readRuleName(rawName) : readEntryName(rawName)
    const before = this.#text(kind, name)
    if (before === null) {
      throw new RefusalError(
        'notFound',
        'name',
        `There is no ${kind} ${name}.`,
        'See the list for those that there are.',
      )
    }
    this.#changes.write(
      author,
      [{ kind, key: name, value: null }],
      [{ key: `${kind}/${name}`, before, after: null }],
    )
  }

  #put(author: string, kind: DetectionKind, name: string, value: string): void {
    const before = this.#text(kind, name)
    if (before === value) return
    if (before === null && this.#changes.detectionCount(kind) >= DETECTION_MAX[kind]) {
      throw new RefusalError(
        'invalid',
        'name',
        `There are already ${DETECTION_MAX[kind]} of this kind.`,
        'Remove some that are not used any more.',
      )
    }
    this.#changes.write(
      author,
      [{ kind, key: name, value }],
      [{ key: `${kind}/${name}`, before, after: value }],
    )
  }

  /** A composite that leads back to itself would hold never. */
  #refuseCircle(rule: Rule): void {
    if (rule.look.kind !== 'composite') return
    const named = new Map<string, readonly string[]>()
    for (const { name, look } of [...this.#live.current.detection.rules, rule]) {
      if (look.kind === 'composite') named.set(name, namesIn(parseExpression(look.expression)))
    }
    const seen = new Set<string>()
    const todo = [...(named.get(rule.name) ?? [])]
    for (let name = todo.pop(); name !== undefined; name = todo.pop()) {
      if (name === rule.name) {
        throw new RefusalError(
          'invalid',
          'expression',
          'The expression leads back to this rule.',
          'Name rules that do not ask for it.',
        )
      }
      if (seen.has(name)) continue
      seen.add(name)
      todo.push(...(named.get(name) ?? []))
    }
  }

  #text(kind: DetectionKind, name: string): string | null {
    const cell = this.#rows.cell(kind, name)
    return cell === null ? null : forceOf(kind, name, cell).value
  }

  #stamp(kind: DetectionKind, name: string): Stamped {
    const cell = this.#rows.cell(kind, name)
    if (cell === null) return { by: '', changedMs: 0 }
    const { author, stamp } = forceOf(kind, name, cell)
    return { by: author, changedMs: wallMsOf(stamp) }
  }
}
