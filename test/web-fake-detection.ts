/** What an operator adds to detection, of an Admin without a node: the real readers, no store. */
import type {
  Author,
  DetectionAdmin,
  MapRow,
  RuleRow,
  RuleScore,
  ScoreRow,
  YaraRow,
} from '../src/admin/contract.ts'
import type { Clock } from '../src/base/clock.ts'
import { RefusalError } from '../src/base/errors.ts'
import {
  readEntryName,
  readMap,
  readRule,
  readRuleName,
  readScore,
  readYara,
} from '../src/config/rules.ts'

type Row = Readonly<Record<string, unknown>>

export class FakeDetection implements DetectionAdmin {
  protected readonly clock: Clock
  readonly #rows = {
    rule: new Map<string, RuleRow>(),
    score: new Map<string, ScoreRow>(),
    map: new Map<string, MapRow>(),
    yara: new Map<string, YaraRow>(),
  }

  constructor(clock: Clock) {
    this.clock = clock
  }

  ownRules(): readonly RuleRow[] {
    return [...this.#rows.rule.values()]
  }

  scores(): readonly ScoreRow[] {
    return [...this.#rows.score.values()]
  }

  maps(): readonly MapRow[] {
    return [...this.#rows.map.values()]
  }

  yara(): readonly YaraRow[] {
    return [...this.#rows.yara.values()]
  }

  ruleScores(): readonly RuleScore[] {
    const known: RuleScore[] = [
      {
        rule: 'GTUBE',
        initial: 10,
        score: null,
        says: 'The test text of spam filters.',
        own: false,
      },
      {
        rule: 'EICAR',
        initial: 12,
        score: null,
        says: 'The test file of virus scanners.',
        own: false,
      },
    ]
    return known.map((row) => ({ ...row, score: this.#rows.score.get(row.rule)?.score ?? null }))
  }

  async putDetection(author: Author, kind: string, rawName: string, value: unknown): Promise<void> {
    this.mustAct(author)
    const stamp = { by: author.name, changedMs: this.clock.wallMs() }
    const row = value as Row
    if (kind === 'rule') {
      const rule = readRule(rawName, value)
      this.#rows.rule.set(rule.name, { ...rule, ...stamp })
    } else if (kind === 'score') {
      const rule = readRuleName(rawName)
      this.#rows.score.set(rule, { rule, score: readScore(row['score']), ...stamp })
    } else if (kind === 'map') {
      const name = readEntryName(rawName)
      this.#rows.map.set(name, { name, entries: readMap(row['entries']), ...stamp })
    } else {
      const name = readEntryName(rawName)
      this.#rows.yara.set(name, { name, source: readYara(row['source']), ...stamp })
    }
  }

  removeDetection(author: Author, kind: string, rawName: string): void {
    this.mustAct(author)
    const rows = Object.entries(this.#rows).find(([name]) => name === kind)?.[1]
    const name =
      kind === 'rule' || kind === 'score' ? readRuleName(rawName) : readEntryName(rawName)
    if (rows?.delete(name) === true) return
    throw new RefusalError('notFound', 'name', `There is no ${kind} ${name}.`, 'See the list.')
  }

  protected mustAct({ role }: Author): void {
    if (role === 'admin') return
    throw new RefusalError('forbidden', null, 'You may look, and change nothing.', 'Ask an admin.')
  }
}
