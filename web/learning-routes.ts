/** Routes of the API for teaching: a mail is spam, or ham, or was learnt by mistake. */
import { t } from 'elysia'
import { RefusalError } from '../src/base/errors.ts'
import { optional, type Route, TEXT, text } from './route.ts'
import * as shape from './shapes.ts'
import type { Site } from './site.ts'

/** Characters of a mail as base64: a request has at most 4 MB. */
const SOURCE_CHARS_MAX = 4_000_000

export function learningRoutes({ admin }: Pick<Site, 'admin'>): readonly Route[] {
  const tag = 'Learning'
  return [
    {
      method: 'GET',
      path: '/learning',
      summary: 'How many mails all nodes have learnt',
      tag,
      answer: shape.LEARNING,
      run: () => admin.learning(),
    },
    {
      method: 'POST',
      path: '/learning',
      summary: 'Learn a held mail, or one by its source; the last label of a mail counts',
      tag,
      body: t.Object({
        as: TEXT('spam, ham or forget', 20),
        id: t.Optional(TEXT('Id of a held mail', 64)),
        source: t.Optional(TEXT('Instead: the whole mail as base64', SOURCE_CHARS_MAX)),
        domain: t.Optional(TEXT('Domain of its recipients, with a source', 253)),
      }),
      answer: shape.LESSON,
      refuses: [404, 409],
      run: (call) => {
        const [id, source] = [optional(call, 'id'), optional(call, 'source')]
        if (id !== undefined && source === undefined)
          return admin.learnHeld(call.author(), id, text(call, 'as'))
        if (source === undefined || id !== undefined) throw oneOf()
        const domain = optional(call, 'domain') ?? null
        return admin.learnSource(call.author(), bytesOf(source), text(call, 'as'), domain)
      },
    },
  ]
}

function bytesOf(source: string): Uint8Array {
  if (/^[A-Za-z0-9+/\s]+={0,2}\s*$/.test(source)) return Buffer.from(source, 'base64')
  throw new RefusalError(
    'invalid',
    'source',
    'The source is not base64.',
    'Encode the whole mail, as `base64 -w0 mail.eml` does.',
  )
}

function oneOf(): RefusalError {
  return new RefusalError(
    'invalid',
    'id',
    'One mail is learnt at a time.',
    'Give id for a held mail, or source for one that is not.',
  )
}
