/** The sample mails: templates, and what fills them at the moment of sending. */
import { mailDate } from '../../message/date.ts'
import clean from './mails/clean.eml' with { type: 'text' }
import gtube from './mails/gtube.eml' with { type: 'text' }
import malformed from './mails/malformed.eml' with { type: 'text' }
import newsletter from './mails/newsletter.eml' with { type: 'text' }
import virus from './mails/virus.eml' with { type: 'text' }
import { storedZip } from './zip.ts'

export type Sample = {
  /** One line for the terminal. */
  readonly what: string
  readonly sender: string
  readonly recipients: readonly string[]
  /** The message with CRLF line ends, dots not stuffed. */
  readonly text: string
}

/** The domain whose mail the demo takes. */
export const DEMO_DOMAIN = 'example.com'

const TEMPLATES: readonly (Omit<Sample, 'text'> & { readonly template: string })[] = [
  {
    what: 'a clean mail',
    sender: 'lena@supplier.example',
    recipients: ['anna@example.com'],
    template: clean,
  },
  {
    what: 'a newsletter',
    sender: 'bounce-7f3a@harbour-books.example',
    recipients: ['anna@example.com'],
    template: newsletter,
  },
  {
    what: 'spam (GTUBE), two recipients',
    sender: 'winner@lucky-draw.example',
    recipients: ['anna@example.com', 'bruno@example.com'],
    template: gtube,
  },
  {
    what: 'a virus (EICAR) in a zip',
    sender: 'accounts@parcel-office.example',
    recipients: ['anna@example.com'],
    template: virus,
  },
  {
    what: 'a malformed mail',
    sender: 'somebody@elsewhere.example',
    recipients: ['anna@example.com'],
    template: malformed,
  },
]

/** All samples as mails of their own: `id` goes into each Message-ID. */
export function samples(id: string, wallMs: number): readonly Sample[] {
  return TEMPLATES.map(({ template, ...rest }) => ({
    ...rest,
    text: template
      .replaceAll('{{date}}', mailDate(wallMs))
      .replaceAll('{{id}}', id)
      .replaceAll('{{zip}}', () => infectedZip())
      .replaceAll(/\r?\n/g, '\r\n'),
  }))
}

/**
 * EICAR in a zip, base64 in lines. It is put together here, from a text written backwards, so
 * that no virus scanner takes away the repository or the binary.
 */
function infectedZip(): string {
  const backwards = '*H+H$!ELIF-TSET-SURIVITNA-DRADNATS-RACIE$}7)CC7)^P(45XZP\\4[PA@%P!O5X'
  const bytes = Buffer.from([...backwards].reverse().join(''), 'latin1')
  const zip = Buffer.from(storedZip('invoice-20418.txt', bytes))
  return (zip.toString('base64').match(/.{1,76}/g) ?? []).join('\n')
}
