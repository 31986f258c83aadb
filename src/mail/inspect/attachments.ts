/** Dangerous attachments: by every name that a reader would show, and by what the content is. */
import type { Mail } from '../../message/mime.ts'
import type { Finding } from '../../message/verdict.ts'
import { type Files, filesOf } from './files.ts'
import { Found } from './found.ts'
import type { Inspector, Look } from './look.ts'
import { lookAtNames } from './names.ts'

export const attachments: Inspector = {
  name: 'attachments',
  inspect: (look) => {
    const files = filesOf(look)
    return files instanceof Promise ? files.then((late) => tell(look, late)) : tell(look, files)
  },
}

function tell(
  { mail, config, note }: Look,
  { attachments: found, files }: Files,
): readonly Finding[] {
  if (files.length > 0) note({ files })
  const more = new Found()
  for (const part of mail.parts) {
    // An attached message is often named after a site, `Offer of example.com`, and never runs.
    const names = part.container ? part.names.filter((name) => !/\.com[\s.]*$/i.test(name)) : []
    if (names.length > 0)
      lookAtNames(names, 0, names[0] ?? '', config.settings['content.extensions'], more)
  }
  lookAtTypes(mail, more)
  return [...found, ...more.list()]
}

/** Types that bring their content from elsewhere: nobody can look at it here. */
function lookAtTypes({ parts }: Mail, found: Found): void {
  for (const { type } of parts) {
    if (type === 'message/partial')
      found.add('MESSAGE_PARTIAL', 8, 'The message is one piece of a larger one.')
    if (type === 'message/external-body')
      found.add('MESSAGE_EXTERNAL', 4, 'A part is fetched from elsewhere when it is read.')
  }
}
