/** What an operator teaches: this mail is spam, or ham, or was learnt by mistake. */
import { RefusalError } from '../base/errors.ts'
import type { LiveConfig } from '../config/live.ts'
import type { Inspectors } from '../mail/inspect/contract.ts'
import type { Learned } from '../store/learned.ts'
import type { Operators } from '../store/operators.ts'
import { mustAct } from './authorise.ts'
import type { Admin, Author, LearnAs, LearningAdmin, Lesson } from './contract.ts'
import { type FlipDeps, tellFlip } from './flips.ts'

/** A sample is made of the whole message in memory. */
const SOURCE_BYTES_MAX = 64 * 1024 * 1024

export type LearningDeps = {
  readonly live: LiveConfig
  readonly learned: Pick<Learned, 'learn' | 'forget' | 'labelOf' | 'counts'>
  readonly inspectors: Pick<Inspectors, 'sample'>
  readonly operators: Pick<Operators, 'audit'>
  readonly held: Pick<Admin, 'heldOne' | 'heldSource'>
} & FlipDeps

export function learningPart({
  live,
  learned,
  inspectors,
  operators,
  held,
  ...flips
}: LearningDeps): LearningAdmin {
  async function learn(
    author: Author,
    bytes: Uint8Array,
    as: LearnAs,
    domain: string | null,
  ): Promise<Lesson> {
    const sample = await inspectors.sample({ kind: 'memory', bytes })
    const { fingerprint, subject } = sample
    const before = learned.labelOf(fingerprint)
    const isChanged =
      as === 'forget'
        ? learned.forget(author.name, fingerprint)
        : learned.learn(author.name, { sample, label: as, domain })
    if (isChanged) operators.audit(author.name, `learn.${as}`, fingerprint, subject)
    const label = as === 'forget' ? null : as
    return { fingerprint, subject, label, before, flip: null, ...learned.counts() }
  }

  return {
    learning: () => ({
      ...learned.counts(),
      minimum: live.current.settings['learning.minimum'],
    }),

    async learnHeld(author, id, as) {
      mustAct(author)
      const asked = readAs(as)
      const { row, claims } = held.heldOne(id)
      const recipients = [...row.recipients, ...claims.map(({ recipient }) => recipient)]
      const { stream, sizeBytes } = await held.heldSource(id)
      mustBeSmall(sizeBytes)
      const bytes = new Uint8Array(await new Response(stream).arrayBuffer())
      const lesson = await learn(author, bytes, asked, domainOf(recipients))
      return asked === 'spam' ? { ...lesson, flip: tellFlip(row.id, author.name, flips) } : lesson
    },

    async learnSource(author, bytes, as, domain) {
      mustAct(author)
      const asked = readAs(as)
      if (bytes.length === 0) {
        throw new RefusalError('invalid', 'source', 'The mail is empty.', 'Give its whole source.')
      }
      mustBeSmall(bytes.length)
      return await learn(author, bytes, asked, domain === null ? null : domain.toLowerCase())
    },
  }
}

function readAs(text: string): LearnAs {
  if (text === 'spam' || text === 'ham' || text === 'forget') return text
  throw new RefusalError(
    'invalid',
    'as',
    `A mail cannot be learnt as ${JSON.stringify(text.slice(0, 20))}.`,
    'Choose spam, ham or forget.',
  )
}

function mustBeSmall(bytes: number): void {
  if (bytes <= SOURCE_BYTES_MAX) return
  throw new RefusalError(
    'invalid',
    'source',
    `The mail has ${Math.round(bytes / 1_048_576)} MB, and ${SOURCE_BYTES_MAX / 1_048_576} is the most that is learnt.`,
    'Learn another mail of the same kind.',
  )
}

/** The one domain of all recipients: the sample counts for it too. */
function domainOf(recipients: readonly string[]): string | null {
  const domains = new Set(
    recipients.map((address) => address.slice(address.lastIndexOf('@') + 1).toLowerCase()),
  )
  const [only] = domains
  return domains.size === 1 && only !== undefined ? only : null
}
