/**
 * Every rule that this gateway knows by itself: what it usually weighs and what it says. For the
 * table of scores; what an inspector finds may weigh more or less by what it saw.
 */

export type RuleFact = {
  readonly rule: string
  /** The usual weight. */
  readonly score: number
  /** A whole sentence. */
  readonly says: string
}

export const CATALOGUE: readonly RuleFact[] = [
  { rule: 'DNSBL_UNKNOWN', score: 0, says: 'A list did not say whether it has the client.' },
  { rule: 'RDNS_NONE', score: 2, says: 'The address of the client has no name.' },
  { rule: 'RDNS_BROKEN', score: 1, says: 'The name of the client does not lead back to it.' },
  { rule: 'RDNS_UNKNOWN', score: 0, says: 'Nobody could say whether the client has a name.' },
  { rule: 'HELO_BARE_IP', score: 3, says: 'The client calls itself by a bare address.' },
  { rule: 'HELO_IS_OURS', score: 4, says: 'The client calls itself by a name of ours.' },
  { rule: 'HELO_NOT_FQDN', score: 2, says: 'The client calls itself by no full name of a host.' },
  { rule: 'HELO_NO_ADDRESS', score: 1, says: 'The client calls itself by a name without address.' },
  { rule: 'URIBL_UNKNOWN', score: 0, says: 'A list did not say whether it has a link.' },
  { rule: 'URIBL_PARTIAL', score: 0, says: 'Not all links were looked up in lists.' },
  { rule: 'SPF_PASS', score: -0.2, says: "The client is a server that the sender's domain names." },
  { rule: 'SPF_FAIL', score: 1, says: "The client is no server of the sender's domain." },
  {
    rule: 'SPF_SOFTFAIL',
    score: 0.5,
    says: "The client is probably no server of the sender's domain.",
  },
  {
    rule: 'SPF_ALL',
    score: 4,
    says: "The sender's domain lets every server of the world send for it.",
  },
  {
    rule: 'SPF_HELO_FAIL',
    score: 0.5,
    says: 'The client is no server of the name that it gave itself.',
  },
  {
    rule: 'SPF_PERMERROR',
    score: 0,
    says: "The SPF record of the sender's domain cannot be used.",
  },
  {
    rule: 'SPF_TEMPERROR',
    score: 0,
    says: "The name servers had no answer for the SPF record of the sender's domain.",
  },
  { rule: 'DKIM_VALID', score: -0.2, says: 'A signature holds.' },
  { rule: 'DKIM_INVALID', score: 1, says: 'Signatures are of no use, and none holds.' },
  {
    rule: 'DKIM_PARTIAL',
    score: 2,
    says: 'A signature leaves a part of the body to whoever writes there.',
  },
  {
    rule: 'DKIM_TEMPERROR',
    score: 0,
    says: 'The name servers had no answer for the key of a signature.',
  },
  { rule: 'ARC_VALID', score: 0, says: 'The seals of forwarders hold.' },
  { rule: 'ARC_INVALID', score: 1, says: 'The seals of forwarders do not hold.' },
  { rule: 'ARC_TRUSTED', score: -1, says: 'A trusted forwarder saw the author proven.' },
  { rule: 'DMARC_PASS', score: -0.5, says: "The author's domain vouches for the mail." },
  {
    rule: 'DMARC_REJECT',
    score: 4,
    says: "The author's domain does not vouch for the mail, and asks to refuse it.",
  },
  {
    rule: 'DMARC_QUARANTINE',
    score: 1.5,
    says: "The author's domain does not vouch for the mail, and asks to hold it.",
  },
  {
    rule: 'DMARC_NONE',
    score: 0.1,
    says: "The author's domain does not vouch for the mail, and asks for nothing.",
  },
  {
    rule: 'DMARC_TEMPERROR',
    score: 0,
    says: "Whether the author's domain vouches for the mail is not known.",
  },
  { rule: 'OWN_DOMAIN_SPOOF', score: 8, says: 'The author is said to be of ours, and is not.' },
  { rule: 'PERSON_SPOOF', score: 8, says: 'The author bears the name of a protected person.' },
  {
    rule: 'LOOKALIKE_DOMAIN',
    score: 6,
    says: 'A domain looks like one of ours, or like one that is protected.',
  },
  { rule: 'FROM_INVALID', score: 4, says: 'From names nobody.' },
  { rule: 'FROM_SEVERAL', score: 2, says: 'From names authors of several domains.' },
  { rule: 'FROM_GROUP', score: 2, says: 'From names a group.' },
  {
    rule: 'FROM_ADDRESS_IN_NAME',
    score: 3,
    says: "The author's name holds the address of somebody else.",
  },
  { rule: 'FROM_HIDDEN', score: 3, says: "The author's name holds characters that nobody sees." },
  {
    rule: 'FROM_MIXED_SCRIPTS',
    score: 3,
    says: "The author's name mixes letters of several scripts in one word.",
  },
  {
    rule: 'REPLYTO_OUTSIDE',
    score: 4,
    says: 'The author is said to be of ours, and answers go elsewhere.',
  },
  {
    rule: 'FREEMAIL_REPLYTO',
    score: 2,
    says: 'Answers go to a free provider, and the author is of none.',
  },
  {
    rule: 'FREEMAIL_REPLYTO_OTHER',
    score: 1,
    says: 'Author and answers are of different free providers.',
  },
  { rule: 'FORGED_RESULTS', score: 0, says: 'Results of checks in our name were cut off.' },
  {
    rule: 'ALLOW_UNPROVEN',
    score: 0,
    says: 'The author is on the allow list, and nobody proves that it wrote this.',
  },
]
