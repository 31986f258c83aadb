/** Rules, scores, maps and YARA sources of the operator, and the table of all rules with their scores. */
import { RefusalError } from '../base/errors.ts'
import { DETECTION_KINDS, type DetectionKind, memberOf } from '../config/rules.ts'
import { CATALOGUE } from '../message/catalogue.ts'
import type { DetectionStore } from '../store/detection.ts'
import { mustAct } from './authorise.ts'
import type { DetectionAdmin, RuleScore } from './contract.ts'

/** `checkYara`: throws when a source does not compile. */
export function detectionPart({
  detection,
  checkYara,
}: {
  readonly detection: DetectionStore
  readonly checkYara: (source: string) => Promise<void>
}): DetectionAdmin {
  const put: Readonly<
    Record<DetectionKind, (author: string, name: string, value: unknown) => void>
  > = {
    rule: (author, name, value) => detection.putRule(author, name, value),
    score: (author, name, value) => detection.putScore(author, name, memberOf(value, 'score')),
    map: (author, name, value) => detection.putMap(author, name, memberOf(value, 'entries')),
    yara: (author, name, value) => detection.putYara(author, name, memberOf(value, 'source')),
  }
  return {
    ownRules: () => detection.rules(),
    scores: () => detection.scores(),
    maps: () => detection.maps(),
    yara: () => detection.yara(),
    ruleScores: () => scoresOf(detection),
    async putDetection(author, kind, name, value) {
      mustAct(author)
      const source = memberOf(value, 'source')
      if (kind === 'yara' && typeof source === 'string') await checkYara(source)
      put[kindOf(kind)](author.name, name, value)
    },
    removeDetection(author, kind, name) {
      mustAct(author)
      detection.remove(author.name, kindOf(kind), name)
    },
  }
}

/** All rules by name: ours, the operator's, and those that only have a score. */
function scoresOf(detection: DetectionStore): readonly RuleScore[] {
  const rows = new Map<string, RuleScore>()
  for (const { rule, score, says } of CATALOGUE) {
    rows.set(rule, { rule, initial: score, score: null, says, own: false })
  }
  for (const { name, score, describe } of detection.rules()) {
    rows.set(name, { rule: name, initial: score, score: null, says: describe, own: true })
  }
  for (const { rule, score } of detection.scores()) {
    const row = rows.get(rule) ?? { rule, initial: null, score: null, says: '', own: false }
    rows.set(rule, { ...row, score })
  }
  return [...rows.values()].sort((a, b) => (a.rule < b.rule ? -1 : 1))
}

function kindOf(kind: string): DetectionKind {
  const known = DETECTION_KINDS.find((each) => each === kind)
  if (known !== undefined) return known
  throw new RefusalError(
    'notFound',
    'kind',
    `There is nothing called ${JSON.stringify(kind.slice(0, 40))}.`,
    'Use rule, score, map or yara.',
  )
}
