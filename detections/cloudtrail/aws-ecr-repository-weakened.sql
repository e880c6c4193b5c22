/*
title: Protection of an image repository weakened
severity: medium
attack: [T1525, T1195.002, T1204.003]
entity: [cloud_account_uid, repository]
summary: "{actor} called {event_name} on {repository} of account {cloud_account_uid}"
triage: |
  1. A policy for anybody or an outside account: who could push? Compare digests of running images with the builds.
  2. Tags that may be moved: list pushes since, and pin what runs by digest.
  3. Scanning off, images or a profile of signatures gone: what was pushed or hidden at that time?
  4. Put the setting back; it is managed as code in most places.
benign: Sandboxes, cleaning up of old images by a job of one's own.
references:
  - https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_SetRepositoryPolicy.html
  - https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_PutImageTagMutability.html
*/
