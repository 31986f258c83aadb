/** Name servers out of a table, and a message under inspectors that ask them until they know enough. */
import { type DnsAnswer, type DnsAnswers, type DnsQuestion, keyOf } from '../src/base/names.ts'
import { type Given, lookLong } from './look.ts'

/** By name in lower case, then by type; a text is the cause of a failure. */
export type Zone = Readonly<Record<string, Readonly<Record<string, readonly string[] | string>>>>

function answerFrom(zone: Zone, { name, type }: DnsQuestion): DnsAnswer {
  const records = zone[name.toLowerCase().replace(/\.$/, '')]?.[type]
  if (records === undefined) return { status: 'absent' }
  if (typeof records === 'string') return { status: 'failed', cause: records }
  return { status: 'found', records }
}

/** As the pool does it: again with the answers, until nothing is asked. */
export async function lookIn(zone: Zone, raw: Uint8Array, given: Given) {
  const answers: Record<string, DnsAnswer> = { ...given.answers }
  for (let rounds = 1; ; rounds++) {
    const seen = await lookLong(raw, { ...given, answers: answers as DnsAnswers })
    const questions = seen.questions.map((text): DnsQuestion => {
      const [type = '', name = ''] = text.split(' ')
      return { type: type as DnsQuestion['type'], name }
    })
    const fresh = questions.filter((question) => answers[keyOf(question)] === undefined)
    if (fresh.length === 0) return { ...seen, rounds, asked: Object.keys(answers) }
    if (rounds > 16) throw new Error(`it never knows enough: ${seen.questions.join(', ')}`)
    for (const question of fresh) answers[keyOf(question)] = answerFrom(zone, question)
  }
}
