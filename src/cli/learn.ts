/** `learn LABEL ID|-`: teaches the filter of all nodes. */
import { Api } from './api.ts'
import { jsonText, plain } from './print.ts'
import { dataDirOf, optionOf, type Run, UsageError, type World } from './world.ts'

/** A request to the node has at most 4 MB. */
const MAIL_BYTES_MAX = 3_000_000

/** As POST /api/v1/learning gives it. */
type Lesson = {
  readonly subject: string
  readonly label: 'spam' | 'ham' | null
  readonly before: 'spam' | 'ham' | null
  readonly spam: number
  readonly ham: number
  /** A node of before does not say it. */
  readonly flip?: { readonly query: string; readonly recipients: number } | null
}

export const learn: Run = async (call, world) => {
  const [as = '', id = ''] = call.args
  if (!['spam', 'ham', 'forget'].includes(as)) {
    throw new UsageError(
      'label',
      `A mail cannot be learnt as ${JSON.stringify(as.slice(0, 20))}.`,
      'Say "postern learn spam ID", ham or forget.',
    )
  }
  const domain = optionOf(call, '--domain')
  const what =
    id === '-'
      ? {
          source: Buffer.from(await mailFrom(world)).toString('base64'),
          ...(domain === undefined ? {} : { domain }),
        }
      : { id }
  const lesson = await new Api(dataDirOf(call)).call<Lesson>('POST', '/learning', { as, ...what })
  if (call.json) await world.out(jsonText(lesson))
  else await world.out(`${plain(wordsOf(lesson))}\n${flipWords(lesson)}`)
  return 0
}

async function mailFrom(world: World): Promise<Uint8Array> {
  const bytes = await world.bytes()
  if (bytes.length <= MAIL_BYTES_MAX) return bytes
  throw new UsageError(
    'source',
    'The mail has more than 3 MB.',
    'Learn it by its id while it is held, or another mail of the same kind.',
  )
}

function flipWords({ flip }: Lesson): string {
  if (flip === null || flip === undefined) return ''
  const { recipients, query } = flip
  return `${recipients === 1 ? '1 recipient has' : `${recipients} recipients have`} a link or a file of it already: postern trace ${plain(query).replace(/'/g, '')}\n`
}

function wordsOf({ subject, label, before, spam, ham }: Lesson): string {
  const mail = subject === '' ? 'The mail' : `“${subject}”`
  const counts = `${spam} spam and ${ham} ham are known.`
  if (label === before) {
    return label === null
      ? `${mail} was not learnt; ${counts}`
      : `${mail} was learnt as ${label} already; ${counts}`
  }
  if (label === null) return `${mail} is not learnt as ${before} any more; ${counts}`
  const former = before === null ? '' : `, no longer as ${before}`
  return `${mail} is learnt as ${label}${former}; ${counts}`
}
